# Table 5 on VOC: the method as it is.
_base_ = ['../../../alignzeg_voc.py']
trained_by = 'configs/alignzeg_voc.py'
