# PASCAL VOC 2012, 15 seen and 5 unseen classes. Training images are those of VOC and SBD.
_base_ = ['./pipeline_640.py']
# fmt: off
classes = [
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
    'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
]
unseen_classes = [
    'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
]
# fmt: on
seen_classes = [name for name in classes if name not in unseen_classes]
expected_images = dict(train=10582, val=1449, test=1449)

train_dataloader = dict(
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='CheckedPascalVOCDataset',
                data_root='data/VOCdevkit/VOC2012',
                data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
                ann_file='ImageSets/Segmentation/train.txt',
                metainfo=dict(classes=seen_classes, unseen_classes=[]),
                pipeline={{_base_.train_pipeline}},
            ),
            dict(
                type='CheckedPascalVOCDataset',
                data_root='data/VOCdevkit/VOC2012',
                data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
                ann_file='ImageSets/Segmentation/aug.txt',
                prepare_command='alignzeg convert voc data/VOCdevkit/VOC2012',
                metainfo=dict(classes=seen_classes, unseen_classes=[]),
                pipeline={{_base_.train_pipeline}},
            ),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='CheckedPascalVOCDataset',
        data_root='data/VOCdevkit/VOC2012',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
        metainfo=dict(classes=classes, unseen_classes=unseen_classes),
        pipeline={{_base_.test_pipeline}},
    ),
)
test_dataloader = val_dataloader
