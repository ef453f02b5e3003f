# Table 4 on the embedded world, +PBC+MRPE+FES+BDS: + background diversity, the whole method.
_base_ = ['../../../alignzeg_patterns.py']
trained_by = 'configs/alignzeg_patterns.py'
