# Supplement, figure 2: M, the number of background prototypes, on the embedded world.
_base_ = ['../../../alignzeg_patterns.py']
sweep = dict(key='model.semantic_head.num_backgrounds', values=[2, 5, 10, 20, 30])
