# SigLIP 2 L/16-256 in place of ViT-B/16. All 24 layers run before the tail, which is the attention pooling alone.
_base_ = ['../alignzeg_coco.py']
model = dict(
    clip=dict(
        model_name='ViT-L-16-SigLIP2-256',
        pretrained='webli',
        tap_layer=12,
        tail_layers=0,
    ),
    decode_head=dict(bias_heads=16),
)
