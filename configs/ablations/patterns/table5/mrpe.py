# Table 5 on the embedded world: the unchanged method.
_base_ = ['../../../alignzeg_patterns.py']
trained_by = 'configs/alignzeg_patterns.py'
