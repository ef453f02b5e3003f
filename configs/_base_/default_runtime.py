custom_imports = dict(imports=['mmseg_alignzeg'], allow_failed_imports=False)
default_scope = 'mmseg'
runner_type = 'CheckedRunner'  # errors of a config, and missing files, in one line each

env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl')
)
# MMEngine's defaults except `device_ids`, which must be None on a CPU and may be None on a GPU. With this dict,
# `find_unused_parameters` must be set here, not at the top level of a config.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=False)
log_level = 'INFO'
# device = 'cuda'  # fails if there is no GPU; by default, the CPU is used instead
load_from = None
resume = False
randomness = dict(seed=0)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='WholeCheckpointHook', by_epoch=False, interval=5000, max_keep_ckpts=2),
    guard=dict(type='FiniteGuardHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='ZeroShotVisualizationHook'),
    health=dict(type='HealthHook', interval=1000),
)
custom_hooks = [dict(type='SafeCheckpointHook'), dict(type='VocabularyHook'), dict(type='RandomStateHook')]
