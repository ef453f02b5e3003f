# A residual around MRPE's MLPs, or none as the text reads, on the embedded world.
_base_ = ['../../../alignzeg_patterns.py']
sweep = dict(key='model.decode_head.mlp_residual', values=[True, False])
