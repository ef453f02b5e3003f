# Pipelines and loaders of the small real datasets, at 320²: the augmentation of pipeline_640.py at half its size, and
# batches of 16 images on one GPU.
_base_ = ['./pipeline_640.py']
crop_size = (320, 320)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadClassSubset'),
    dict(type='RandomChoiceResize', scales=list(range(160, 481, 32)), resize_type='ResizeShortestEdge', max_size=1280),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=1.0),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortestEdge', scale=(320, 320), max_size=1280),
    dict(type='LoadAnnotations'),  # after the resize: labels keep their own size
    dict(type='PackSegInputs'),
]
tta_pipeline = test_pipeline
train_dataloader = dict(batch_size=16)
