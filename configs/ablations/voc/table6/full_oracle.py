# Table 6 on VOC: the proposals of the whole method get oracle classes.
_base_ = ['../../../alignzeg_voc.py']
trained_by = 'configs/alignzeg_voc.py'
model = dict(decoder=dict(type='OracleDecoder'))
