# Table 4 on CCP, +PBC+MRPE: no virtual features either.
_base_ = ['./baseline_pbc_mrpe_fes.py']
model = dict(criterion=dict(feature_expansion=None))
