# Table 5 on VOC: the unchanged method.
_base_ = ['../../../alignzeg_voc.py']
trained_by = 'configs/alignzeg_voc.py'
