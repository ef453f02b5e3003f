# Table 4 on the embedded world, +PBC+MRPE+FES: one background prototype and no L_reg.
_base_ = ['../../../alignzeg_patterns.py']
model = dict(semantic_head=dict(num_backgrounds=1), background_diversity=None)
