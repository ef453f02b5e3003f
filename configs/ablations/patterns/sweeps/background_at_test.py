# The softmax over C + 1 with the background's share dropped, or over C alone, on the embedded world.
_base_ = ['../../../alignzeg_patterns.py']
trained_by = 'configs/alignzeg_patterns.py'
sweep = dict(key='model.background_at_test', values=['share', 'ignore'])
