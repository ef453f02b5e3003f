# Supplement, figure 1: λ3, the weight of L_vir, on COCO-Stuff.
_base_ = ['../../../alignzeg_coco.py']
sweep = dict(key='model.criterion.feature_expansion.loss_weight', values=[0.1, 0.01, 0.001, 0.0001])
