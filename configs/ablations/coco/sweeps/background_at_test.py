# The softmax over C + 1 with the background's share dropped, or over C alone, on COCO-Stuff.
_base_ = ['../../../alignzeg_coco.py']
trained_by = 'configs/alignzeg_coco.py'
sweep = dict(key='model.background_at_test', values=['share', 'ignore'])
