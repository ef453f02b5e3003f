# Table 4 on MSRC-v2, +PBC+MRPE+FES+BDS: the whole method.
_base_ = ['../../../alignzeg_msrc.py']
trained_by = 'configs/alignzeg_msrc.py'
