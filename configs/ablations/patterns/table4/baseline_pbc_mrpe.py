# Table 4 on the embedded world, +PBC+MRPE: + MRPE in place of the plain decoder.
_base_ = ['./baseline_pbc_mrpe_fes.py']
model = dict(feature_expansion=None)
