# AlignZeg in the embedded world: trains on two CPU cores in minutes, without downloads.
_base_ = [
    './_base_/default_runtime.py',
    './_base_/models/alignzeg_tiny.py',
    './_base_/schedules/adamw_poly.py',
    './_base_/datasets/patterns.py',
]
model = dict(classes={{_base_.classes}}, unseen_classes={{_base_.unseen_classes}})
optim_wrapper = dict(
    optimizer=dict(lr=5e-4),
    # 1,000 iterations are too few for the prototypes to rotate; the full-size schedules are 20 to 80 times as long.
    paramwise_cfg=dict(custom_keys=dict(background_prototypes=dict(lr_mult=20.0))),
)
max_iters = 1000
train_cfg = dict(type='ResumableTrainLoop', max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=100, end=max_iters, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=max_iters), health=dict(interval=100))
