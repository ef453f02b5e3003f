# N, the number of proposals, on VOC.
_base_ = ['../../../alignzeg_voc.py']
sweep = dict(key='model.decode_head.num_queries', values=[75, 100, 200])
