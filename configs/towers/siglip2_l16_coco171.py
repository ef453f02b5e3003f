# siglip2_l16_coco.py, trained on all 171 classes to be tested on other datasets.
_base_ = ['./siglip2_l16_coco.py']
model = dict(unseen_classes=[])
train_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.classes}})))
val_dataloader = dict(dataset=dict(metainfo=dict(unseen_classes=[])))
test_dataloader = dict(dataset=dict(metainfo=dict(unseen_classes=[])))
