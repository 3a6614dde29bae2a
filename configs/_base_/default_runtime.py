# What every pre-training run has: the two update hooks, logging, checkpoints,
# bad files counted and listed, a clean stop when the run diverges or the
# scheduler needs the machine.
default_scope = 'mmmoco'

# Where flips, colours and blur are done: by the workers, or for whole batches
# on the device that trains.
device_views = False

# A schedule that ends elsewhere than the run is an error; 'fit' stretches it
# to the run, 'keep' trains so all the same (--schedule does it too).
schedule = None

custom_hooks = [
    dict(type='AddressedRandomnessHook'),
    dict(type='KeyEncoderUpdateHook'),
    dict(type='DictionaryUpdateHook'),
    dict(type='MonitorHook'),
    dict(type='BadFilesHook'),
    dict(type='NonFiniteHook'),
    dict(type='PreemptionHook'),
]
default_hooks = dict(
    guard=dict(type='GuardHook'),
    runtime_info=dict(type='ScalarsHook'),
    timer=dict(type='IterTimerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='ContrastCheckpointHook', interval=10, max_keep_ckpts=3
    ),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=1),
    dist_cfg=dict(backend='nccl'),
)
log_processor = dict(window_size=50)
log_level = 'INFO'
load_from = None
resume = False

# Trackers are added here; the first one writes scalars.json for the report.
visualizer = dict(
    type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]
)
