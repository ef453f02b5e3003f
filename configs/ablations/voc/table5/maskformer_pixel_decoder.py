# Table 5 on VOC: MaskFormer's pixel decoder (mmdet's) in place of MRPE.
_base_ = ['../../../alignzeg_voc.py']
model = dict(decode_head=dict(_delete_=True, type='PixelDecoderHead', num_queries=100, bias_heads=12))
