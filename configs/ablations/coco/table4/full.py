# Table 4 on COCO-Stuff, +PBC+MRPE+FES+BDS: the whole method.
_base_ = ['../../../alignzeg_coco.py']
trained_by = 'configs/alignzeg_coco.py'
