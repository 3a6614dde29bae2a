# Any folder of images: data_root/train if there is one (ImageNet), else
# data_root itself, at any depth. A leaf config adds the views.
_base_ = 'loaders.py'
images = dict(type='ImageFolderDataset', data_root='data/imagenet')
train_dataloader = dict(
    batch_size=32,
    dataset=dict(data_prefix='train', prefix_optional=True, **images),
)

# Evaluation: ImageNet's layout, resize 256, centre crop 224.
eval_pipeline = [
    dict(type='LoadRGB'),
    dict(type='ToPIL'),
    dict(type='mmpretrain.torchvision/Resize', size=256),
    dict(type='mmpretrain.torchvision/CenterCrop', size=224),
    dict(type='PackImage'),
]
loader = dict(batch_size=64, **_base_.loader)
labelled = dict(with_labels=True, pipeline=eval_pipeline, **images)
knn = dict(
    k=20,
    temperature=0.07,
    features='backbone',
    bank=dict(dataset=dict(data_prefix='train', **labelled), **loader),
    query=dict(dataset=dict(data_prefix='val', **labelled), **loader),
)
