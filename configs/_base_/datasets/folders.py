# Folders of one's own. A config that inherits says where they are and what the labels are called.
_base_ = ['./pipeline_640.py']
train_dataloader = dict(dataset=dict(type='FoldersDataset', pipeline={{_base_.train_pipeline}}))
val_dataloader = dict(dataset=dict(type='FoldersDataset', pipeline={{_base_.test_pipeline}}))
test_dataloader = val_dataloader
