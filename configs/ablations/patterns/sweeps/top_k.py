# K of the negative proposals in L_bc, on the embedded world.
_base_ = ['../../../alignzeg_patterns.py']
sweep = dict(key='model.class_indicator.top_k', values=[10, 25, 50, 75])
