# Table 4 on the embedded world, +PBC+MRPE+FES+BDS: the whole method.
_base_ = ['../../../alignzeg_patterns.py']
trained_by = 'configs/alignzeg_patterns.py'
