# Table 4 on the embedded world, +PBC+MRPE+FES: + feature expansion.
_base_ = ['../../../alignzeg_patterns.py']
model = dict(semantic_head=dict(num_backgrounds=1), criterion=dict(background_diversity=None))
