# Memory bank in place of the queue, K = 65536 (arXiv 1911.05722, figure 3).
# Hardware: 8 GPUs of 8 GB or more, 32 images each.
# Time: not published.
# Metric: 58.0 % linear top-1 after 200 epochs (published by the authors).
_base_ = 'mocov1_r50_8xb32.py'

model = dict(
    dictionary=dict(
        _delete_=True,
        type='MemoryBank',
        size=1281167,
        feat_dim=128,
        num_negatives=65536,
        momentum=0.5,
    )
)
# Entries answer, not a second view.
views = dict(view_q=_base_.views.view_q)
pipeline = [dict(type='LoadRGB'), dict(type='Views', views=views)]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
