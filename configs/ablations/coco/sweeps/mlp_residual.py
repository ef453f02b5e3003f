# A residual around MRPE's MLPs, or none as the text reads, on COCO-Stuff.
_base_ = ['../../../alignzeg_coco.py']
sweep = dict(key='model.decode_head.mlp_residual', values=[True, False])
