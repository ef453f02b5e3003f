# Preference on the embedded world: the whole method with a score for proposals; tested on the image alone.
_base_ = ['../../../alignzeg_patterns.py']
model = dict(
    preference=dict(
        type='PreferenceHead',
        loss=dict(type='PreferenceLoss', views={{_base_.tta_model.views}}, medium_from=500),
    ),
)
