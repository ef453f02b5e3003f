# The factor of mask logits, from the paper's 1 to 1 / √D, on VOC.
_base_ = ['../../../alignzeg_voc.py']
sweep = dict(key='model.decode_head.mask_scale', values=[1.0, 0.25, 0.065])
