# Table 4's first row in the embedded world: a plain decoder, L_ce and L_mask only.
_base_ = ['../../alignzeg_patterns.py']
model = dict(
    decode_head=dict(_delete_=True, type='PlainDecoderHead', num_queries=100, bias_heads=3),
    semantic_head=dict(num_backgrounds=1),
    feature_expansion=None,
    background_diversity=None,
    class_indicator=None,
    bias_correction=None,
)
