# Table 4 on the embedded world, +PBC: + φ_bc and PBC.
_base_ = ['./baseline_pbc_mrpe.py']
model = dict(decode_head=dict(_delete_=True, type='PlainDecoderHead', num_queries=100, bias_heads=3, mask_scale=0.1))
