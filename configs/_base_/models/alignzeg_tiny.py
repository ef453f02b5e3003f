# AlignZeg on the embedded tiny CLIP at 128², small enough for two CPU cores.
_base_ = './alignzeg_vitb16.py'
model = dict(
    data_preprocessor=dict(size=(128, 128), test_cfg=dict(size_divisor=16)),
    clip=dict(model_name='tiny_clip', pretrained='embedded', tap_layer=3, tail_layers=3, scale_factor=0.5),
    image_encoder=dict(image_size=128, patch_size=8, embed_dim=96, depth=2, num_heads=3),
    # With few seen classes, masks of unseen ones are lost without stochastic depth. Chosen on the validation scenes.
    decode_head=dict(num_heads=3, bias_heads=3, image_drop=0.5),
    # Chosen on the validation scenes: with Eq. (6) as written, φ_bc predicts too many proposals as unseen at γ = 0.3.
    class_indicator=dict(balanced=True),
    criterion=dict(num_points=1024),
)
