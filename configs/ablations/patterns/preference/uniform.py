# Preference on the embedded world: an ensemble with equal weights for all views, plain test-time augmentation.
_base_ = ['../../../alignzeg_patterns.py']
trained_by = 'configs/ablations/patterns/preference/single.py'  # any checkpoint of the whole method works
model = dict(decoder=dict(type='EnsembleDecoder', views={{_base_.tta_model.views}}))
