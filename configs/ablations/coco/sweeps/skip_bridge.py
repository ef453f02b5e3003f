# CLIP's layers between the first and the last ones: run, or left out as the text reads, on COCO-Stuff.
_base_ = ['../../../alignzeg_coco.py']
sweep = dict(key='model.clip.skip_bridge', values=[False, True])
