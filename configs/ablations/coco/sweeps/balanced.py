# L_bc as the mean over all selected proposals, as in Eq. 6, or over each kind, on COCO-Stuff.
_base_ = ['../../../alignzeg_coco.py']
sweep = dict(key='model.class_indicator.balanced', values=[False, True])
