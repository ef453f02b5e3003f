# AlignZeg on CLIP ViT-B/16, section 4.2 of the paper. Configs add `classes` and `unseen_classes` of their split.
model = dict(
    type='AlignZeg',
    data_preprocessor=dict(
        type='PinnedSegDataPreProcessor',
        bgr_to_rgb=True,  # mean and std are those of the CLIP model
        pad_val=0,
        seg_pad_val=255,
        size=(640, 640),
        test_cfg=dict(size_divisor=32),
    ),
    clip=dict(
        model_name='ViT-B-16-quickgelu',  # OpenAI's weights were trained with QuickGELU
        pretrained='openai',  # or the path of a local file
        tap_layer=6,
        tail_layers=3,
        scale_factor=0.5,
    ),
    text=dict(templates='vild'),
    image_encoder=dict(type='ImageEncoder', image_size=640, patch_size=16, embed_dim=240, depth=8, num_heads=6),
    decode_head=dict(type='MRPEHead', num_queries=100, bias_heads=12),
    semantic_head=dict(type='CLIPSemanticHead', num_backgrounds=10),
    class_indicator=dict(type='ClassIndicator', top_k=50),
    bias_correction=dict(type='PredictiveBiasCorrection', gamma=0.3),
    criterion=dict(
        type='AlignZegCriterion',
        class_weight=2.0,
        mask_weight=5.0,
        feature_expansion=dict(type='FeatureExpansionLoss', alpha=3.0, loss_weight=1e-2),
        background_diversity=dict(type='BackgroundDiversityLoss', loss_weight=1e-4),
    ),
)
# `mim test --tta`: an ensemble of views, see EnsembleDecoder. The scales were chosen in the embedded world.
tta_model = dict(type='AlignZegTTA', views=[dict(), dict(scale=0.875), dict(scale=1.125)])
