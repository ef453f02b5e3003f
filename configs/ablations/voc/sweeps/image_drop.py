# The share of training images without the image refinement, on VOC.
_base_ = ['../../../alignzeg_voc.py']
sweep = dict(key='model.decode_head.image_drop', values=[0.0, 0.25, 0.5, 0.75])
