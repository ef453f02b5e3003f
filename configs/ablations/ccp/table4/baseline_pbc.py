# Table 4 on CCP, +PBC: a plain transformer decoder in place of MRPE.
_base_ = ['./baseline_pbc_mrpe.py']
model = dict(decode_head=dict(_delete_=True, type='PlainDecoderHead', num_queries=100, bias_heads=12))
