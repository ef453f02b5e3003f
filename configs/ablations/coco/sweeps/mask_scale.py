# The factor of mask logits, from the paper's 1 to 1 / √D, on COCO-Stuff.
_base_ = ['../../../alignzeg_coco.py']
sweep = dict(key='model.decode_head.mask_scale', values=[1.0, 0.25, 0.065])
