# Table 6 on the embedded world: the proposals of the baseline get oracle classes.
_base_ = ['../table4/baseline.py']
trained_by = 'configs/ablations/patterns/table4/baseline.py'
model = dict(decoder=dict(type='OracleDecoder'))
