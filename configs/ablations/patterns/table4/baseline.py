# Table 4 on the embedded world, the baseline: a plain decoder, L_ce and L_mask only.
_base_ = ['./baseline_pbc.py']
model = dict(class_indicator=None, bias_correction=None)
