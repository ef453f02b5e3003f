# The factor of mask logits, from the paper's 1 to 1 / √D, on the embedded world.
_base_ = ['../../../alignzeg_patterns.py']
sweep = dict(key='model.decode_head.mask_scale', values=[1.0, 0.3, 0.1])
