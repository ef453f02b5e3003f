# Custom folders. A config that inherits from this one sets the paths and the class names.
_base_ = ['./pipeline_640.py']
train_dataloader = dict(dataset=dict(type='FoldersDataset', pipeline={{_base_.train_pipeline}}))
val_dataloader = dict(dataset=dict(type='FoldersDataset', pipeline={{_base_.test_pipeline}}))
test_dataloader = val_dataloader
