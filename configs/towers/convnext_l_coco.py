# ConvNeXt-L CLIP in place of ViT-B/16, as in FC-CLIP: at full size, masked pooling of the last map (20²), no prompts.
_base_ = ['../alignzeg_coco.py']
model = dict(
    clip=dict(
        model_name='convnext_large_d_320',
        pretrained='laion2b_s29b_b131k_ft_soup',
        tap_layer=3,
        tail_layers=0,
        num_prompts=0,
        scale_factor=1.0,
    ),
    decode_head=dict(bias_heads=1),
)
