# Preference on the embedded world: an ensemble whose views all count alike, plain test-time augmentation.
_base_ = ['../../../alignzeg_patterns.py']
trained_by = 'configs/ablations/patterns/preference/single.py'  # any checkpoint of the whole method will do
model = dict(decoder=dict(type='EnsembleDecoder', views=[dict(), dict(scale=0.875), dict(scale=1.125)]))
