# The softmax over C + 1 with the background's share dropped, or over C alone, on VOC.
_base_ = ['../../../alignzeg_voc.py']
trained_by = 'configs/alignzeg_voc.py'
sweep = dict(key='model.background_at_test', values=['share', 'ignore'])
