# The test pipeline for label maps of more than 255 classes.
wide_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortestEdge', scale=(640, 640), max_size=2560),
    dict(type='LoadWideAnnotations'),  # after the resize: labels keep their own size
    dict(type='PackSegInputs'),
]
