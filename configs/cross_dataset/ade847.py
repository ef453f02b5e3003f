# the 2,000 images of A-150, 847 classes, 16-bit labels.
_base_ = ['./alignzeg_coco171.py', '../_base_/datasets/pipeline_640_wide.py']
trained_by = 'configs/cross_dataset/alignzeg_coco171.py'
expected_images = dict(val=2000, test=2000)
dataset = dict(
    _delete_=True,
    type='ADE20KFullDataset',
    data_root='data/ADE20K_2021_17_01',
    prepare_command='alignzeg convert ade847 data/ADE20K_2021_17_01',
    data_prefix=dict(img_path='images_detectron2/validation', seg_map_path='annotations_detectron2/validation'),
    metainfo=dict(unseen_classes=None),  # classes with trained names are seen
    pipeline={{_base_.wide_test_pipeline}},
)
tta_pipeline = {{_base_.wide_test_pipeline}}
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
val_evaluator = dict(type='ZeroShotIoUMetric', ignore_index=65535)
test_evaluator = val_evaluator
