# K of the negative proposals in L_bc, on COCO-Stuff.
_base_ = ['../../../alignzeg_coco.py']
sweep = dict(key='model.class_indicator.top_k', values=[10, 25, 50, 75])
