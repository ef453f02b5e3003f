# OpenAI's ViT-L/14-336 in place of ViT-B/16. As in SAN: 18 + 6 layers, and 448² for 640². The tap is in the middle.
_base_ = ['../alignzeg_coco.py']
model = dict(
    clip=dict(
        model_name='ViT-L-14-336-quickgelu',
        tap_layer=12,
        tail_layers=6,
        scale_factor=0.7,
    ),
    decode_head=dict(bias_heads=16),
)
