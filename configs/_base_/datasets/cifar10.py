# CIFAR-10 as image files: data/cifar10/{train,test}/<class>/*. k-NN as the
# authors of MoCo monitor it. A leaf config adds the views.
_base_ = 'loaders.py'
images = dict(type='ImageFolderDataset', data_root='data/cifar10')
train_dataloader = dict(
    batch_size=512, dataset=dict(data_prefix='train', **images)
)
loader = dict(batch_size=512, **_base_.loader)
eval_pipeline = [dict(type='LoadRGB'), dict(type='PackImage')]
labelled = dict(with_labels=True, pipeline=eval_pipeline, **images)
knn = dict(
    k=200,
    temperature=0.1,
    features='neck',
    bank=dict(dataset=dict(data_prefix='train', **labelled), **loader),
    query=dict(dataset=dict(data_prefix='test', **labelled), **loader),
)
