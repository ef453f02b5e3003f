# N, the number of proposals, on the embedded world.
_base_ = ['../../../alignzeg_patterns.py']
sweep = dict(key='model.decode_head.num_queries', values=[75, 100, 200])
