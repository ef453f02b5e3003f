# SigLIP 2 B/16 in place of ViT-B/16. All 12 layers run before the tail, which is the attention pooling alone.
_base_ = ['../alignzeg_coco.py']
model = dict(
    clip=dict(
        model_name='ViT-B-16-SigLIP2',
        pretrained='webli',
        tail_layers=0,
    ),
    decode_head=dict(bias_heads=12),
)
