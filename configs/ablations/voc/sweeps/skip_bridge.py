# CLIP's layers between the first and the last ones: run, or left out as the text reads, on VOC.
_base_ = ['../../../alignzeg_voc.py']
sweep = dict(key='model.clip.skip_bridge', values=[False, True])
