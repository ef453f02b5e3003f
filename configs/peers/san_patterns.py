# Peer in the embedded world: mmseg's own SAN
# It predicts the names in its text encoder, so training and test configs differ.
_base_ = './training/san_patterns.py'
trained_by = 'configs/peers/training/san_patterns.py'
model = dict(
    text_encoder=dict(vocabulary={{_base_.classes}}),
    decode_head=dict(
        num_classes=20,
        train_cfg=None,
        loss_decode=dict(_delete_=True, type='CrossEntropyLoss', loss_weight=2.0),
    ),
)
