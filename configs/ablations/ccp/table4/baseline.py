# Table 4 on CCP, the baseline: L_ce and L_mask only.
_base_ = ['./baseline_pbc.py']
model = dict(class_indicator=None, bias_correction=None)
