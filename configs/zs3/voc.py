# Strict zero-shot on VOC: only unseen classes can be predicted, and seen pixels are ignored.
_base_ = ['../alignzeg_voc.py']
trained_by = 'configs/alignzeg_voc.py'
val_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.unseen_classes}})))
test_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.unseen_classes}})))
