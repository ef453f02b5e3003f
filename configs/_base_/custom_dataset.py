# Template for a dataset of two folders (images and label maps): copy this file and edit what is above the line.
# `folders_tiny.py` in place of `folders.py` tries it on a CPU without a download.
_base_ = __import__('mmseg_alignzeg').__path__[0] + '/.mim/configs/_base_/folders.py'
data_root = 'data/mine'
train_folders = dict(img_path='images/train', seg_map_path='labels/train')
test_folders = dict(img_path='images/val', seg_map_path='labels/val')
suffixes = dict(img_suffix='.jpg', seg_map_suffix='.png')
classes = ['sky', 'road', 'car']  # names of the values 0, 1, 2, … in the label maps
unseen_classes = ['car']  # the subset without labels in training
no_label = dict(ignored_labels=[])  # values without a class, besides 255; reduce_zero_label=True if classes start at 1
max_iters = 20000
# ---------------------------------------------------------------------------------------------------------------------
seen_classes = [name for name in classes if name not in unseen_classes]
seen, every = dict(classes=seen_classes, unseen_classes=[]), dict(classes=classes, unseen_classes=unseen_classes)
files = dict(data_root=data_root, label_classes=classes, **suffixes, **no_label)
model = dict(**every)
train_dataloader = dict(dataset=dict(files, data_prefix=train_folders, metainfo=seen))
val_dataloader = dict(dataset=dict(files, data_prefix=test_folders, metainfo=every))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=max_iters)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)]
