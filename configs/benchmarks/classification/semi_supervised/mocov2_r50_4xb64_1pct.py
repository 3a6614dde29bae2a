# Semi-supervised: a ResNet-50 tuned on 1 % of ImageNet, 20 epochs.
# Hardware: 4 GPUs of 16 GB.
# Time: not measured.
# Metric: 39.07 % top-1, 68.31 % top-5 for MoCo v2, 200 epochs (OpenSelfSup).
_base_ = '../../../_base_/benchmarks/semi_supervised_r50.py'
# The list of the images: published, or from tools/make_label_subset.py.
train_dataloader = dict(dataset=dict(ann_file='train_1pct.txt'))
