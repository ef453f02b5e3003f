# Table 5 on the embedded world: MaskFormer's pixel decoder (mmdet's) in place of MRPE.
_base_ = ['../../../alignzeg_patterns.py']
model = dict(decode_head=dict(_delete_=True, type='PixelDecoderHead', num_queries=100, bias_heads=3, mask_scale=0.1))
