# Supplement, figure 2: M, the number of background prototypes, on the embedded world; the base has 10.
_base_ = ['../../../alignzeg_patterns.py']
sweep = dict(key='model.semantic_head.num_backgrounds', values=[2, 30])
