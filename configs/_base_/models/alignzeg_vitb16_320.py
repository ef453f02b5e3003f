# AlignZeg on CLIP ViT-B/16 at 320². CLIP sees 320² as in the paper; only Z_enc sees fewer pixels.
_base_ = ['./alignzeg_vitb16.py']
model = dict(
    data_preprocessor=dict(size=(320, 320)),
    clip=dict(scale_factor=1.0),
    image_encoder=dict(image_size=320),
    criterion=dict(num_points=3136),  # a quarter of the points on a quarter of the pixels
)
