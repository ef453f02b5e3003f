# Table 4 on CCP, +PBC+MRPE+FES: one background prototype and no L_reg.
_base_ = ['../../../alignzeg_ccp.py']
model = dict(semantic_head=dict(num_backgrounds=1), criterion=dict(background_diversity=None))
