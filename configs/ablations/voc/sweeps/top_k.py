# K of the negative proposals in L_bc, on VOC.
_base_ = ['../../../alignzeg_voc.py']
sweep = dict(key='model.class_indicator.top_k', values=[10, 25, 50, 75])
