# Attention biases per proposal: one as written, or one per head of CLIP as SAN has, on the embedded world.
_base_ = ['../../../alignzeg_patterns.py']
sweep = dict(key='model.decode_head.bias_heads', values=[1, 3])
