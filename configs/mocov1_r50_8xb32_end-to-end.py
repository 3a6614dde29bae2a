# End-to-end: the keys of the batch, with gradient (arXiv 1911.05722, fig. 3).
# Hardware: 8 GPUs of 16 GB or more, 32 images each.
# Time: not published.
# Metric: published as a curve only (figure 3).
_base_ = 'mocov1_r50_8xb32.py'

model = dict(
    dictionary=dict(_delete_=True, type='InBatch', key_grad=True),
)
