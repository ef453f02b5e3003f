# Supplement, figure 2: M, the number of background prototypes, on VOC.
_base_ = ['../../../alignzeg_voc.py']
sweep = dict(key='model.semantic_head.num_backgrounds', values=[2, 5, 10, 20, 30])
