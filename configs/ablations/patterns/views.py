# An ensemble of three views on the embedded world, plain test-time augmentation. Any checkpoint of the method works.
_base_ = ['../../alignzeg_patterns.py']
trained_by = 'configs/alignzeg_patterns.py'
model = dict(decoder=dict(type='EnsembleDecoder', views={{_base_.tta_model.views}}))
