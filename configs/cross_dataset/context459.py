# PC-459: the images of PC-59, all 459 classes, 16-bit labels.
_base_ = ['./alignzeg_coco171.py', '../_base_/datasets/pipeline_640_wide.py']
trained_by = 'configs/cross_dataset/alignzeg_coco171.py'
expected_images = dict(val=[5104, 5105], test=[5104, 5105])
dataset = dict(
    _delete_=True,
    type='PascalContext459Dataset',
    data_root='data/VOCdevkit/VOC2010',
    prepare_command='alignzeg convert context459 data/VOCdevkit/VOC2010',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='annotations_detectron2/pc459_val'),
    metainfo=dict(unseen_classes=None),  # classes with trained names are seen
    pipeline={{_base_.wide_test_pipeline}},
)
tta_pipeline = {{_base_.wide_test_pipeline}}
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
val_evaluator = dict(type='ZeroShotIoUMetric', ignore_index=65535)
test_evaluator = val_evaluator
