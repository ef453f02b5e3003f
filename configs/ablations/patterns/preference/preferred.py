# Preference on the embedded world: an ensemble whose views are weighted by the scores of their proposals.
_base_ = ['./single.py']
trained_by = 'configs/ablations/patterns/preference/single.py'
model = dict(
    decoder=dict(
        type='EnsembleDecoder',
        views=[dict(), dict(scale=0.875), dict(scale=1.125)],  # chosen on the validation scenes
        weighting='preference',
    )
)
