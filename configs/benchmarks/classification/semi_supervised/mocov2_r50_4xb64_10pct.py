# Semi-supervised: a ResNet-50 tuned on 10 % of ImageNet, 20 epochs.
# Hardware: 4 GPUs of 16 GB.
# Time: not measured.
# Metric: 61.80 % top-1, 85.11 % top-5 for MoCo v2, 200 epochs (OpenSelfSup).
_base_ = '../../../_base_/benchmarks/semi_supervised_r50.py'
# The list of the images: published, or from tools/make_label_subset.py.
train_dataloader = dict(dataset=dict(ann_file='train_10pct.txt'))
