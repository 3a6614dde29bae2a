# LARS with fp16. lr is that for batch 256, scaled to the effective batch when
# the run starts.
_base_ = 'cosine_100e.py'
optim_wrapper = dict(
    type='ContrastOptimWrapper',
    dtype='float16',
    optimizer=dict(
        type='LARS', lr=0.6, momentum=0.9, weight_decay=1e-6, trust=0.001
    ),
)
auto_scale_lr = dict(base_batch_size=256, enable=True)
auto_scale_m = dict(base_batch_size=4096, enable=False)
