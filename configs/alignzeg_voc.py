# AlignZeg on PASCAL VOC 2012, 15 seen and 5 unseen classes, for eight GPUs (section 4.2 of the paper).
_base_ = [
    './_base_/default_runtime.py',
    './_base_/models/alignzeg_vitb16.py',
    './_base_/schedules/adamw_poly_amp.py',
    './_base_/datasets/voc_15_5.py',
]
model = dict(
    classes={{_base_.classes}},
    unseen_classes={{_base_.unseen_classes}},
    text=dict(templates='single'),
)
train_cfg = dict(type='ResumableTrainLoop', max_iters=20000, val_interval=5000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=20000, by_epoch=False)]
