# mmseg's SAN in the embedded world. Create its CLIP first: python tools/clip_to_san.py
_base_ = [
    '../../_base_/default_runtime.py',
    '../../_base_/schedules/adamw_poly.py',
    '../../_base_/datasets/patterns.py',
]
custom_imports = dict(imports=['mmseg_alignzeg', 'alignzeg.benchmark.peers'])
norm_cfg = dict(type='LN', eps=1e-5)
num_classes = 12  # seen classes
model = dict(
    type='MultimodalEncoderDecoder',
    pretrained='work_dirs/peers/tiny_clip.pth',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[122.7709, 116.7460, 104.0937],
        std=[68.5005, 66.6322, 70.3232],
        bgr_to_rgb=True,
        size=(128, 128),
        seg_pad_val=255,
        test_cfg=dict(size_divisor=16),
    ),
    asymetric_input=True,
    encoder_resolution=0.5,
    image_encoder=dict(
        type='VisionTransformer',
        img_size=(64, 64),
        patch_size=8,
        patch_pad=0,
        embed_dims=96,
        num_layers=3,
        num_heads=3,
        out_origin=True,
        out_indices=(0, 1, 2),
        with_cls_token=True,
        output_cls_token=True,
        pre_norm=True,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='GELU'),
        interpolate_mode='bicubic',
        frozen_exclude=['pos_embed'],
    ),
    text_encoder=dict(
        type='TextBankEncoder', vocabulary={{_base_.seen_classes}}, model_name='tiny_clip', weights='embedded'
    ),
    decode_head=dict(
        type='SideAdapterCLIPHead',
        num_classes=num_classes,
        deep_supervision_idxs=[3],
        san_cfg=dict(
            in_channels=3,
            clip_channels=96,
            embed_dims=96,
            patch_size=8,
            num_queries=100,
            cfg_encoder=dict(num_encode_layer=4, num_heads=3, mlp_ratio=4),
            fusion_index=[0, 1, 2, 3],
            cfg_decoder=dict(num_heads=3, num_layers=1, embed_channels=96, mlp_channels=96, num_mlp=3, rescale=True),
            norm_cfg=dict(type='LN', eps=1e-6),
        ),
        maskgen_cfg=dict(sos_token_num=100, num_layers=3, embed_dims=96, num_heads=3, out_dims=64, norm_cfg=norm_cfg),
        align_corners=False,
        train_cfg=dict(
            num_points=1024,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type='HungarianAssigner',
                match_costs=[
                    dict(type='ClassificationCost', weight=2.0),
                    dict(type='CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
                    dict(type='DiceCost', weight=5.0, pred_act=True, eps=1.0),
                ],
            ),
        ),
        loss_decode=[
            dict(
                type='CrossEntropyLoss',
                loss_name='loss_cls_ce',
                loss_weight=2.0,
                class_weight=[1.0] * num_classes + [0.1],
            ),
            dict(type='CrossEntropyLoss', use_sigmoid=True, loss_name='loss_mask_ce', loss_weight=5.0),
            dict(
                type='DiceLoss', ignore_index=None, naive_dice=True, eps=1, loss_name='loss_mask_dice', loss_weight=5.0
            ),
        ],
    ),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(
    optimizer=dict(lr=5e-4, eps=1e-8),
    paramwise_cfg=dict(
        custom_keys=dict(
            # As intended by mmseg's config for SAN, whose key `img_encoder` matches no parameter.
            image_encoder=dict(lr_mult=0.1),
            # As for AlignZeg's background prototypes: 1,000 iterations are too few for the background to rotate. If it
            # starts near the name of an unseen class, proposals without an object get that name at test time.
            bg_embed=dict(lr_mult=20.0, decay_mult=0.0),
        )
    ),
)
max_iters = 1000
train_cfg = dict(type='ResumableTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = val_dataloader = val_evaluator = None  # the model predicts only seen classes
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=100, end=max_iters, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
custom_hooks = [dict(type='SafeCheckpointHook'), dict(type='RandomStateHook')]
