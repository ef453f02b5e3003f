# CLIP's layers between the first and the last ones: run, or left out as the text reads, on the embedded world.
_base_ = ['../../../alignzeg_patterns.py']
sweep = dict(key='model.clip.skip_bridge', values=[False, True])
