# L_bc as the mean over all selected proposals, as in Eq. 6, or over each kind, on VOC.
_base_ = ['../../../alignzeg_voc.py']
sweep = dict(key='model.class_indicator.balanced', values=[False, True])
