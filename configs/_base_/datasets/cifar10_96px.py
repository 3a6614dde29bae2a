# CIFAR-10 enlarged to 96 pixels, for a ViT with patches of 16; k-NN on the
# backbone.
_base_ = 'cifar10.py'
eval_pipeline = [
    dict(type='LoadRGB'),
    dict(type='ToPIL'),
    dict(type='mmpretrain.torchvision/Resize', size=96),
    dict(type='PackImage'),
]
train_dataloader = dict(batch_size=256)
knn = dict(
    k=20,
    temperature=0.07,
    features='backbone',
    bank=dict(dataset=dict(pipeline=eval_pipeline)),
    query=dict(dataset=dict(pipeline=eval_pipeline)),
)
