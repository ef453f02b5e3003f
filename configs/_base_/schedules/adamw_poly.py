# SAN's settings, except for `eps` and the weight decay of the prototypes; the paper gives none.
# Configs set the duration: `train_cfg.max_iters` and `param_scheduler[0].end`.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainableOptimWrapperConstructor',
    # After clipping, gradients of the attention bias and of φ_bc are close to Adam's usual eps of 1e-8.
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4, eps=1e-10),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(
            pos_embed=dict(decay_mult=0.0), queries=dict(decay_mult=0.0), background_prototypes=dict(decay_mult=0.0)
        ),
    ),
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
