# EuroSAT with frozen features of MoCo v2, ResNet-50: k-NN and linear probe.
# Hardware: one GPU, or a CPU.
# Time: not measured.
# Metric: none published for k-NN; 98.0 % linear with SSL4EO-S12 weights.
_base_ = [
    '../../../_base_/models/mocov2_r50.py',
    '../../../_base_/benchmarks/eurosat.py',
    '../../../_base_/default_runtime.py',
]
