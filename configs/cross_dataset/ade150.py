# the validation set of ADE20K, 2,000 images, 150 classes.
_base_ = ['./alignzeg_coco171.py']
trained_by = 'configs/cross_dataset/alignzeg_coco171.py'
expected_images = dict(val=2000, test=2000)
dataset = dict(
    _delete_=True,
    type='CheckedADE20KDataset',
    data_root='data/ade/ADEChallengeData2016',
    data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    metainfo=dict(unseen_classes=None),  # classes with trained names are seen
    pipeline={{_base_.test_pipeline}},
)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
