# Table 6 on VOC: the proposals of the baseline get oracle classes.
_base_ = ['../table4/baseline.py']
trained_by = 'configs/ablations/voc/table4/baseline.py'
model = dict(decoder=dict(type='OracleDecoder'))
