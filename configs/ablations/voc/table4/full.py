# Table 4 on VOC, +PBC+MRPE+FES+BDS: the whole method.
_base_ = ['../../../alignzeg_voc.py']
trained_by = 'configs/alignzeg_voc.py'
