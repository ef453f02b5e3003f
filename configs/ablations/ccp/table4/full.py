# Table 4 on CCP, +PBC+MRPE+FES+BDS: the whole method.
_base_ = ['../../../alignzeg_ccp.py']
trained_by = 'configs/alignzeg_ccp.py'
