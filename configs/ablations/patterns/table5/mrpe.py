# Table 5 on the embedded world: the method as it is.
_base_ = ['../../../alignzeg_patterns.py']
trained_by = 'configs/alignzeg_patterns.py'
