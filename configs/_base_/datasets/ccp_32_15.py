# Clothing Co-Parsing, 32 seen and 15 unseen classes of its 59 labels (docs/benchmarks.md says why these).
_base_ = ['./pipeline_320.py']
# fmt: off
label_classes = [  # of the values 0 to 58 in the files
    'null', 'accessories', 'bag', 'belt', 'blazer', 'blouse', 'bodysuit', 'boots', 'bra', 'bracelet', 'cape',
    'cardigan', 'clogs', 'coat', 'dress', 'earrings', 'flats', 'glasses', 'gloves', 'hair', 'hat', 'heels', 'hoodie',
    'intimate', 'jacket', 'jeans', 'jumper', 'leggings', 'loafers', 'necklace', 'panties', 'pants', 'pumps', 'purse',
    'ring', 'romper', 'sandals', 'scarf', 'shirt', 'shoes', 'shorts', 'skin', 'skirt', 'sneakers', 'socks',
    'stockings', 'suit', 'sunglasses', 'sweater', 'sweatshirt', 'swimwear', 't-shirt', 'tie', 'tights', 'top', 'vest',
    'wallet', 'watch', 'wedges',
]
unused = [  # background, and labels that fewer than 10 of the 1,004 label maps contain
    'null', 'bodysuit', 'bra', 'clogs', 'earrings', 'hoodie', 'intimate', 'panties', 'ring', 'swimwear', 'tights',
    'wedges',
]
unseen_classes = [
    'blazer', 'boots', 'hat', 'jeans', 'leggings', 'purse', 'sandals', 'scarf', 'shorts', 'skirt', 'stockings',
    'sunglasses', 'sweatshirt', 't-shirt', 'vest',
]
# fmt: on
classes = [name for name in label_classes if name not in unused]
seen_classes = [name for name in classes if name not in unseen_classes]
expected_images = dict(train=604, val=100, test=300)

files = dict(
    type='FoldersDataset',
    data_root='data/clothing-co-parsing',
    data_prefix=dict(img_path='photos', seg_map_path='labels'),
    img_suffix='.jpg',
    seg_map_suffix='.png',
    label_classes=label_classes,
    prepare_command='alignzeg convert ccp data/clothing-co-parsing',
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
