# VOC-20: the validation set of PASCAL VOC 2012, 1,449 images, 20 classes without background.
_base_ = ['./alignzeg_coco171.py']
trained_by = 'configs/cross_dataset/alignzeg_coco171.py'
# fmt: off
classes = [
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
    'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
]
# fmt: on
expected_images = dict(val=1449, test=1449)
dataset = dict(
    _delete_=True,
    type='CheckedPascalVOCDataset',
    data_root='data/VOCdevkit/VOC2012',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/val.txt',
    metainfo=dict(classes=classes, unseen_classes=None),  # classes with trained names are seen
    pipeline={{_base_.test_pipeline}},
)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
