# AlignZeg on Clothing Co-Parsing, 32 seen and 15 unseen classes, at 320² on one GPU (docs/benchmarks.md).
_base_ = [
    './_base_/default_runtime.py',
    './_base_/models/alignzeg_vitb16_320.py',
    './_base_/schedules/adamw_poly.py',
    './_base_/datasets/ccp_32_15.py',
]
model = dict(
    classes={{_base_.classes}},
    unseen_classes={{_base_.unseen_classes}},
)
train_cfg = dict(type='ResumableTrainLoop', max_iters=4000, val_interval=1000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=4000, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=1000))
