# Figure 6: γ of PBC, with one checkpoint, on COCO-Stuff.
_base_ = ['../../../alignzeg_coco.py']
trained_by = 'configs/alignzeg_coco.py'
sweep = dict(key='model.bias_correction.gamma', values=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
