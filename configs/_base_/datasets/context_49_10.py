# PASCAL Context, 49 seen and 10 unseen classes.
_base_ = ['./pipeline_640.py']
# fmt: off
classes = [
    'aeroplane', 'bag', 'bed', 'bedclothes', 'bench', 'bicycle', 'bird', 'boat', 'book', 'bottle', 'building',
    'bus', 'cabinet', 'car', 'cat', 'ceiling', 'chair', 'cloth', 'computer', 'cow', 'cup', 'curtain', 'dog', 'door',
    'fence', 'floor', 'flower', 'food', 'grass', 'ground', 'horse', 'keyboard', 'light', 'motorbike', 'mountain',
    'mouse', 'person', 'plate', 'platform', 'pottedplant', 'road', 'rock', 'sheep', 'shelves', 'sidewalk', 'sign',
    'sky', 'snow', 'sofa', 'table', 'track', 'train', 'tree', 'truck', 'tvmonitor', 'wall', 'water', 'window',
    'wood',
]
unseen_classes = [
    'cow', 'motorbike', 'sofa', 'cat', 'boat', 'fence', 'bird', 'tvmonitor', 'keyboard', 'aeroplane',
]
# fmt: on
seen_classes = [name for name in classes if name not in unseen_classes]
# The `detail` API has 4,996 and 5,104 images; the original lists have two and one more.
expected_images = dict(train=[4996, 4998], val=[5104, 5105], test=[5104, 5105])

train_dataloader = dict(
    dataset=dict(
        type='CheckedPascalContextDataset59',
        data_root='data/VOCdevkit/VOC2010',
        prepare_command='alignzeg convert context59 data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/train.txt',
        metainfo=dict(classes=seen_classes, unseen_classes=[]),
        pipeline={{_base_.train_pipeline}},
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='CheckedPascalContextDataset59',
        data_root='data/VOCdevkit/VOC2010',
        prepare_command='alignzeg convert context59 data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/val.txt',
        metainfo=dict(classes=classes, unseen_classes=unseen_classes),
        pipeline={{_base_.test_pipeline}},
    ),
)
test_dataloader = val_dataloader
