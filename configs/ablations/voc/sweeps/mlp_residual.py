# A residual around MRPE's MLPs, or none as the text reads, on VOC.
_base_ = ['../../../alignzeg_voc.py']
sweep = dict(key='model.decode_head.mlp_residual', values=[True, False])
