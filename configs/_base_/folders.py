# AlignZeg on custom folders, without class names: see custom_dataset.py in this folder.
_base_ = [
    './default_runtime.py',
    './models/alignzeg_vitb16.py',
    './schedules/adamw_poly_amp.py',
    './datasets/folders.py',
]
train_cfg = dict(type='ResumableTrainLoop', max_iters=20000, val_interval=5000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=20000, by_epoch=False)]
default_hooks = dict(visualization=dict(interval=1))  # `--show-dir` draws every test image, not one in 50
