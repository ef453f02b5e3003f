# Table 4 on the embedded world, +PBC+MRPE: no virtual features either.
_base_ = ['./baseline_pbc_mrpe_fes.py']
model = dict(feature_expansion=None)
