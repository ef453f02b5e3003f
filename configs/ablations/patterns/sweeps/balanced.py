# L_bc as the mean over all selected proposals, as in Eq. 6, or over each kind, on the embedded world.
_base_ = ['../../../alignzeg_patterns.py']
sweep = dict(key='model.class_indicator.balanced', values=[False, True])
