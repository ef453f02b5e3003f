# Strict zero-shot in the embedded world: only unseen classes can be predicted, and seen pixels are ignored.
_base_ = ['../alignzeg_patterns.py']
trained_by = 'configs/alignzeg_patterns.py'
val_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.unseen_classes}})))
test_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.unseen_classes}})))
