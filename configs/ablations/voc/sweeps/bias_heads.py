# Attention biases per proposal: one as written, or one per head of CLIP as SAN has, on VOC.
_base_ = ['../../../alignzeg_voc.py']
sweep = dict(key='model.decode_head.bias_heads', values=[1, 12])
