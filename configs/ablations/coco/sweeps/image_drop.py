# The share of training images without the image refinement, on COCO-Stuff.
_base_ = ['../../../alignzeg_coco.py']
sweep = dict(key='model.decode_head.image_drop', values=[0.0, 0.25, 0.5, 0.75])
