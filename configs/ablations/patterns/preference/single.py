# Preference on the embedded world: the whole method with a score for proposals; tested on the image alone.
_base_ = ['../../../alignzeg_patterns.py']
model = dict(
    preference=dict(
        type='PreferenceHead',
        loss=dict(type='PreferenceLoss', views=[dict(), dict(scale=0.875), dict(scale=1.125)], medium_from=500),
    ),
)
