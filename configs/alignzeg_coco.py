# AlignZeg on COCO-Stuff 164K, 156 seen and 15 unseen classes, for eight GPUs (section 4.2 of the paper).
_base_ = [
    './_base_/default_runtime.py',
    './_base_/models/alignzeg_vitb16.py',
    './_base_/schedules/adamw_poly_amp.py',
    './_base_/datasets/coco_stuff_156_15.py',
]
model = dict(
    classes={{_base_.classes}},
    unseen_classes={{_base_.unseen_classes}},
    clip=dict(num_prompts=20),
    semantic_head=dict(num_backgrounds=20),
    text=dict(templates='zegclip_coco'),
)
train_cfg = dict(type='ResumableTrainLoop', max_iters=80000, val_interval=5000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=80000, by_epoch=False)]
