# A small version of folders.py: the embedded tiny CLIP at 128², to try a dataset on a CPU. It learns the seen classes a
# little, from drawn prototypes, because this CLIP knows no words of photographs. Unseen scores mean nothing.
_base_ = [
    './default_runtime.py',
    './models/alignzeg_tiny.py',
    './schedules/adamw_poly.py',
    './datasets/folders.py',
]
train_cfg = dict(type='ResumableTrainLoop', max_iters=20000, val_interval=5000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=20000, by_epoch=False)]
default_hooks = dict(visualization=dict(interval=1), logger=dict(interval=10))
model = dict(
    text=dict(_delete_=True, drawn=True),
    bias_correction=None,  # after a few hundred iterations, φ_bc would call nearly every proposal unseen
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomChoiceResize', scales=[128, 160, 192], resize_type='ResizeShortestEdge', max_size=512),
    dict(type='RandomCrop', crop_size=(128, 128), cat_max_ratio=1.0),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortestEdge', scale=(128, 128), max_size=512),
    dict(type='LoadAnnotations'),  # after the resize: labels keep their own size
    dict(type='PackSegInputs'),
]
tta_pipeline = test_pipeline
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
