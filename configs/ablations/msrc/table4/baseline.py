# Table 4 on MSRC-v2, the baseline: L_ce and L_mask only.
_base_ = ['./baseline_pbc.py']
model = dict(class_indicator=None, bias_correction=None)
