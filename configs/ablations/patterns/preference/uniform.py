# Preference on the embedded world: an ensemble whose views all count alike, plain test-time augmentation.
_base_ = ['./preferred.py']
model = dict(ensemble=dict(weighting='uniform'))
