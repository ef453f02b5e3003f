# PC-59: the validation set of PASCAL Context, 5,105 images (5,104 in the `detail` package), 59 classes.
_base_ = ['./alignzeg_coco171.py']
trained_by = 'configs/cross_dataset/alignzeg_coco171.py'
expected_images = dict(val=[5104, 5105], test=[5104, 5105])
dataset = dict(
    _delete_=True,
    type='CheckedPascalContextDataset59',
    data_root='data/VOCdevkit/VOC2010',
    prepare_command='alignzeg convert context59 data/VOCdevkit/VOC2010',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
    ann_file='ImageSets/SegmentationContext/val.txt',
    metainfo=dict(unseen_classes=None),  # classes with trained names are seen
    pipeline={{_base_.test_pipeline}},
)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
