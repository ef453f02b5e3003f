# Table 6 on the embedded world: the proposals of the whole method get oracle classes.
_base_ = ['../../../alignzeg_patterns.py']
trained_by = 'configs/alignzeg_patterns.py'
model = dict(decoder=dict(type='OracleDecoder'))
