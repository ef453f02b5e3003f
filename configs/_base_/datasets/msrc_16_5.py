# MSRC-v2, 16 seen and 5 unseen classes. The lists follow a rule, see mmseg_alignzeg/datasets/conversion/msrc.py.
_base_ = ['./pipeline_320.py']
# fmt: off
classes = [
    'building', 'grass', 'tree', 'cow', 'sheep', 'sky', 'aeroplane', 'water', 'face', 'car', 'bicycle', 'flower',
    'sign', 'bird', 'book', 'chair', 'road', 'cat', 'dog', 'body', 'boat',
]
# Each has a seen neighbour: cow, bicycle, grass, dog, grass.
unseen_classes = [
    'sheep', 'car', 'tree', 'cat', 'flower',
]
# fmt: on
seen_classes = [name for name in classes if name not in unseen_classes]
expected_images = dict(train=359, val=58, test=174)

files = dict(
    type='FoldersDataset',
    data_root='data/msrc',
    data_prefix=dict(img_path='Images', seg_map_path='labels'),
    img_suffix='.bmp',
    seg_map_suffix='.png',
    label_classes=classes,
    prepare_command='alignzeg convert msrc data/msrc',
)
trained = dict(classes=seen_classes, unseen_classes=[])
tested = dict(classes=classes, unseen_classes=unseen_classes)
train_dataloader = dict(
    dataset=dict(files, ann_file='lists/train.txt', metainfo=trained, pipeline={{_base_.train_pipeline}})
)
val_dataloader = dict(dataset=dict(files, ann_file='lists/val.txt', metainfo=tested, pipeline={{_base_.test_pipeline}}))
test_dataloader = dict(
    dataset=dict(files, ann_file='lists/test.txt', metainfo=tested, pipeline={{_base_.test_pipeline}})
)
