# The embedded world: 20 classes of colour × pattern, 12 seen and 8 unseen; generated from a seed, without files.
# fmt: off
classes = [
    'red stripes', 'red checks', 'red dots', 'red zigzags', 'red grid',
    'green stripes', 'green checks', 'green dots', 'green zigzags', 'green grid',
    'blue stripes', 'blue checks', 'blue dots', 'blue zigzags', 'blue grid',
    'yellow stripes', 'yellow checks', 'yellow dots', 'yellow zigzags', 'yellow grid',
]
unseen_classes = [
    'red dots', 'red grid', 'green stripes', 'green zigzags',
    'blue checks', 'blue grid', 'yellow dots', 'yellow zigzags',
]
# fmt: on
seen_classes = [name for name in classes if name not in unseen_classes]

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortestEdge', scale=(128, 128), max_size=512),  # a scene has this size; other images may not
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = test_pipeline

# Seed 0 is for training, 1 for choosing settings, 2 for reporting.
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='PatternsDataset',
        length=20000,
        seed=0,
        metainfo=dict(classes=seen_classes, unseen_classes=[]),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='PatternsDataset',
        length=200,
        seed=1,
        metainfo=dict(classes=classes, unseen_classes=unseen_classes),
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='PatternsDataset',
        length=500,
        seed=2,
        metainfo=dict(classes=classes, unseen_classes=unseen_classes),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='ZeroShotIoUMetric')
test_evaluator = val_evaluator
