# folders.py in the small: the embedded tiny CLIP at 128², to try files and names on a CPU. Its scores mean nothing.
_base_ = './folders.py'
model = dict(  # sizes as in alignzeg_patterns.py
    data_preprocessor=dict(size=(128, 128), test_cfg=dict(size_divisor=16)),
    clip=dict(model_name='tiny_clip', pretrained='embedded', tap_layer=3, tail_layers=3, scale_factor=0.5),
    image_encoder=dict(image_size=128, patch_size=8, embed_dim=96, depth=2, num_heads=3),
    decode_head=dict(num_heads=3, bias_heads=3),
    class_indicator=dict(balanced=True),
    num_points=1024,
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
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
