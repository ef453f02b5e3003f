# Trained on all 171 classes of COCO-Stuff, to be tested on other datasets (table 3).
_base_ = ['../alignzeg_coco.py']
model = dict(unseen_classes=[])
train_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.classes}})))
val_dataloader = dict(dataset=dict(metainfo=dict(unseen_classes=[])))
test_dataloader = dict(dataset=dict(metainfo=dict(unseen_classes=[])))
