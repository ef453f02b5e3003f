# N, the number of proposals, on COCO-Stuff.
_base_ = ['../../../alignzeg_coco.py']
sweep = dict(key='model.decode_head.num_queries', values=[75, 100, 200])
