# Preference on the embedded world: an ensemble whose views are weighted by the scores of their proposals.
_base_ = ['./single.py']
trained_by = 'configs/ablations/patterns/preference/single.py'
model = dict(
    decoder=dict(
        type='EnsembleDecoder',
        views={{_base_.tta_model.views}},
        weighting='preference',
    )
)
