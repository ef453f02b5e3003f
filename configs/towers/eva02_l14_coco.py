# EVA02-CLIP-L/14 in place of ViT-B/16: 18 + 6 layers, the tap in the middle, and 448² for 640², twice its own 224².
_base_ = ['../alignzeg_coco.py']
model = dict(
    clip=dict(
        model_name='EVA02-L-14',
        pretrained='merged2b_s4b_b131k',
        tap_layer=12,
        tail_layers=6,
        scale_factor=0.7,
    ),
    decode_head=dict(bias_heads=16),
)
