# Table 4 on the embedded world, +PBC+MRPE: + MRPE, with M as written, in place of the plain decoder with M / √D.
_base_ = ['./baseline_pbc_mrpe_fes.py']
model = dict(criterion=dict(feature_expansion=None))
