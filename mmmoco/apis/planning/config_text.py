"""The choices as a short config, each with its reason, for ``train``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmmoco
from mmmoco.apis.config.python_text import Code, assigned, said

from .choices import BY_LAYER, WATCHED, Choices
from .images import ARRAYS, Images

_NAMES = {
    'mocov1': 'MoCo v1',
    'mocov2': 'MoCo v2',
    'densecl': 'DenseCL',
    'mocov3': 'MoCo v3',
}


def config_text(chosen: Choices, lists: list[str]) -> str:
    """Return the config of a pre-training.

    Args:
        chosen: Every choice.
        lists: Files that list bank and queries of k-NN; none where the
            folders serve.
    """
    lines = [
        *_head(chosen),
        *_data(chosen),
        *_knn(chosen, lists),
        *_model(chosen),
        *_schedule(chosen),
        *_hooks(chosen),
    ]
    return '\n'.join(lines) + '\n'


def _set(**values: Any) -> str:
    return '\n'.join(assigned(k, v) for k, v in values.items())


def _head(chosen: Choices) -> Iterator[str]:
    images, why, method = chosen.images, chosen.why, chosen.method
    vit = method == 'mocov3' and chosen.backbone.is_vit
    yield said(
        f'{_NAMES[method]} with {chosen.backbone.name}, planned by mmmoco '
        f'{mmmoco.__version__}',
        str(images),
        str(chosen.machine),
    )
    for remark in chosen.remarks:
        yield said(f'Warning: {remark}')
    yield said(f'method: {why["method"]}. Backbone: {why["backbone"]}')
    views = 'mocov2' if method == 'densecl' else method
    bases = (
        f'models/{method}_{"vit" if vit else "r50"}',
        f'views/{"bands" if images.kind == "bands" else views}',
        f'datasets/{"band_folder" if images.kind == "bands" else "loaders"}',
        'default_runtime',
    )
    yield _set(
        _base_=[f'mmmoco::_base_/{base}.py' for base in bases],
        work_dir=str(chosen.wishes.folder),
        randomness=dict(seed=chosen.wishes.seed),
    )


def _reading(images: Images) -> list[dict[str, Any]] | Code:
    """Return the transforms that make an image of a file."""
    if images.kind == 'bands':
        return Code('_base_.load')
    if images.low and images.high:
        span = [images.low[0], images.high[0]]
        return [dict(type='LoadRGB', range=span)]
    return [dict(type='LoadRGB')]


def _data(chosen: Choices) -> Iterator[str]:
    images, why = chosen.images, chosen.why
    bands, v3 = images.kind == 'bands', chosen.method == 'mocov3'
    scale = 'values are scaled by percentiles of the images'
    if bands:
        scale = 'Mean ± 2 standard deviations become 0 and 255, by band'
    if bands == bool(images.low):
        scale = ''
    yield '\n' + said(f'Images: {images.root}', scale)
    order = chosen.wishes.order
    if bands:
        yield _set(
            multiband=dict(
                preset=None,
                mean=images.mean,
                std=images.std,
                low=images.low,
                high=images.high,
                **({'order': order} if order != 'auto' else {}),
            )
        )
    yield _set(read=_reading(images))
    yield '\n' + said(f'Views: {why["image_size"]}')
    # MoCo v3 takes smaller parts for a ViT.
    least = 0.08 if chosen.backbone.is_vit else 0.2
    names = ['view_1', 'view_2'] if v3 else ['view_q', 'view_k']
    # Those of the bands are called as MoCo v3's.
    kinds = ['view_1', 'view_2'] if v3 or bands else names
    yield _set(
        image_size=chosen.image_size,
        crop=dict(
            type='FastRandomResizedCrop',
            size=Code('image_size'),
            scale=(least, 1.0),
        ),
        views={
            name: Code(f'[crop, *_base_.{kind}]')
            for name, kind in zip(names, kinds, strict=True)
        },
    )
    if not bands and not chosen.machine.on_cpu:
        yield '# Colours and blur for whole batches on the GPU, not by cores.'
        yield _set(device_views=True)
    yield '\n' + said(
        f'Batch: {chosen.batch} images of an optimizer step, {why["batch"]}'
    )
    sampler = {} if chosen.by_epoch else dict(sampler=dict(infinite=True))
    prefix = dict(data_prefix=images.prefix) if images.prefix else {}
    yield _set(
        train_dataloader=dict(
            batch_size=chosen.micro_batch,
            **sampler,
            dataset=dict(
                type='ImageFolderDataset',
                data_root=images.root,
                **prefix,
                **_files(chosen),
                pipeline=Code("[*read, dict(type='Views', views=views)]"),
            ),
        )
    )


def _files(chosen: Choices) -> dict[str, Any]:
    """Return which files are images, where that is not as usual."""
    images, wishes = chosen.images, chosen.wishes
    found = sorted({Path(path).suffix.lower() for path in images.paths})
    odd = images.kind == 'bands' or {*found} & {*ARRAYS}
    told = dict(
        extensions=found if odd else [],
        include=list(wishes.include),
        exclude=list(wishes.exclude),
    )
    return {name: value for name, value in told.items() if value}


def _knn(chosen: Choices, lists: Sequence[str]) -> Iterator[str]:
    images, labelled = chosen.images, chosen.images.labelled
    if labelled is None:
        if chosen.start:
            yield from _watched(chosen)
        return
    bank, query = chosen.evaluated
    alone = labelled.query is None
    yield '\n' + said(
        'k-NN on the class folders, before the training and after it',
        f'{bank:,} images vote'
        + (', each on all others' if alone else f' on {query:,} others'),
        f'{lists[0]} lists them: all would take too long' if lists else '',
    )
    loaders = []
    for number, prefix in enumerate(
        [images.prefix, images.prefix if alone else labelled.val]
    ):
        place = dict(data_prefix=prefix) if prefix else {}
        if lists:
            place = dict(ann_file=lists[0 if alone else number])
        loaders.append(
            {
                'dataset': {**place, '**': Code('labelled')},
                'batch_size': min(64, max(2, bank)),
                '**': Code('_base_.loader'),
            }
        )
    yield _set(
        labelled=dict(
            type='ImageFolderDataset',
            data_root=images.root,
            with_labels=True,
            **_files(chosen),
            pipeline=_sight(chosen),
        ),
        knn=dict(
            # Copies of an image are no neighbours of it either.
            k=min(20, max(1, bank // 2)),
            temperature=0.07,
            features='backbone',
            **(dict(leave_one_out=True) if alone else {}),
            bank=loaders[0],
            query=loaders[1],
        ),
    )


def _sight(chosen: Choices) -> list[Any]:
    """Return the transforms of an image that is evaluated."""
    size, near = Code('image_size'), round(chosen.image_size * 256 / 224)
    sight: list[dict[str, Any]] = [
        dict(type='ToPIL'),
        dict(type='mmpretrain.torchvision/Resize', size=near),
        dict(type='mmpretrain.torchvision/CenterCrop', size=size),
    ]
    if chosen.images.kind == 'bands':
        # torchvision resizes pictures of PIL only.
        whole = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0))
        sight = [dict(type='FastRandomResizedCrop', size=size, **whole)]
    return [Code('*read'), *sight, dict(type='PackImage')]


def _watched(chosen: Choices) -> Iterator[str]:
    """Yield the images whose neighbours are held against the start."""
    count = min(WATCHED, len(chosen.images.paths))
    prefix = chosen.images.prefix
    yield '\n' + said(
        f'{count:,} images of the training: are their neighbours still those '
        'of the start?'
    )
    yield _set(
        watched={
            'dataset': dict(
                type='ImageFolderDataset',
                data_root=chosen.images.root,
                **(dict(data_prefix=prefix) if prefix else {}),
                **_files(chosen),
                pipeline=_sight(chosen),
            ),
            'batch_size': min(64, count),
            'num_workers': 'auto',
            'collate_fn': dict(type='default_collate'),
            'sampler': dict(
                type='AddressedSampler', shuffle=False, limit=count
            ),
        }
    )


def _backbone(chosen: Choices) -> dict[str, Any]:
    """Return the backbone, with the normalisation that the method needs."""
    config = dict(_delete_=True, **chosen.backbone.config)
    v3 = chosen.method == 'mocov3'
    if chosen.backbone.batch_norm and chosen.backbone.takes_norm:
        config['norm_cfg'] = dict(type='BN')
        if chosen.splits:
            config['norm_cfg'] = dict(type='SplitBN', num_splits=chosen.splits)
        elif v3 and chosen.wishes.gpus > 1:
            config['norm_cfg'] = dict(type='SyncBN')
    if chosen.start:
        config['init_cfg'] = dict(
            type='Pretrained',
            checkpoint=chosen.start.file,
            prefix='backbone.',
        )
    if config['type'] in ('mmpretrain.ResNet', 'mmpretrain.ResNeXt'):
        config['zero_init_residual'] = v3  # As published.
    return config


def _model(chosen: Choices) -> Iterator[str]:
    width, why = chosen.backbone.width, chosen.why
    v3 = chosen.method == 'mocov3'
    narrow = v3 and chosen.machine.on_cpu
    model: dict[str, Any] = dict(
        backbone=_backbone(chosen), neck=dict(in_channels=width)
    )
    if chosen.method in ('mocov2', 'densecl'):
        model['neck']['hid_channels'] = width
    if chosen.backbone.pooled:
        model['neck']['with_avg_pool'] = False
    if v3:
        head: dict[str, Any] = dict(hid_channels=1024) if narrow else {}
        if chosen.wishes.gpus == 1:
            # The heads see vectors; there is nothing to join.
            head['norm_cfg'] = dict(type='BN1d')
        model['neck'] |= head
        model['predictor'] = head
    if chosen.queue:
        model['dictionary'] = dict(size=chosen.queue)
        if chosen.exclude_same_image:
            model['dictionary']['exclude_same_image'] = True
    model['loss'] = dict(temperature=chosen.temperature)
    model |= dict(m=chosen.m, channels_last=True)
    seen = chosen.images if chosen.images.mean else chosen.start
    if seen and chosen.images.kind != 'bands':
        # A network that goes on sees images normalised as it is used to.
        model['data_preprocessor'] = dict(mean=seen.mean, std=seen.std)
    yield '\n' + said(
        'Model',
        f'norm: {why["norm"]}' if 'norm' in why else '',
        f'queue {chosen.queue:,}: {why["queue"]}' if chosen.queue else '',
        f'temperature: {why["temperature"]}',
        f'm, the weight of the old keys: {why["m"]}',
        'heads narrower than published, for a CPU' if narrow else '',
    )
    yield _set(model=model)


def _schedule(chosen: Choices) -> Iterator[str]:
    why, length, warmup = chosen.why, chosen.length, chosen.warmup
    yield '\n' + said(f'Optimizer: lr = {why["lr"]}')
    wrapper: dict[str, Any] = dict(type='ContrastOptimWrapper')
    if chosen.machine.bfloat16:
        wrapper['dtype'] = 'bfloat16'
    if chosen.accumulation > 1:
        wrapper['accumulative_counts'] = chosen.accumulation
    wrapper['optimizer'] = chosen.optimizer
    if chosen.start:
        decay = 'LearningRateDecayOptimWrapperConstructor'
        wrapper['constructor'] = f'mmpretrain.{decay}'
        wrapper['paramwise_cfg'] = dict(layer_decay_rate=BY_LAYER)
    yield _set(
        optim_wrapper=wrapper,
        auto_scale_lr=dict(base_batch_size=chosen.batch, enable=False),
    )
    yield '\n' + said(
        f'Length: {chosen.length_text}, {why["length"]}', why['warmup']
    )
    loop = dict(type='IterBasedTrainLoop', max_iters=length)
    counted = dict(by_epoch=False)
    if chosen.by_epoch:
        loop = dict(type='EpochBasedTrainLoop', max_epochs=length)
        counted = dict(by_epoch=True, convert_to_iter_based=True)
    cosine = dict(
        type='CosineAnnealingLR',
        T_max=length - warmup,
        begin=warmup,
        end=length,
        **counted,
    )
    rise = dict(type='WarmupLR', begin=0, end=warmup, **counted)
    yield _set(
        train_cfg=loop,
        param_scheduler=[rise, cosine] if warmup else [cosine],
    )


def _hooks(chosen: Choices) -> Iterator[str]:
    length = chosen.length
    often = rarely = length
    if chosen.evaluations > 2:
        often = -(-length // 10)
        rarely = -(-length // (chosen.evaluations - 1))
    every = min(100, -(-chosen.iterations // 4))
    checkpoint: dict[str, Any] = dict(interval=often)
    yield ''
    if chosen.start:
        yield said(
            f'On from {chosen.start.source}: at first the heads learn alone',
            'the run stops where the network loses what it knew, and the best '
            'one is kept',
        )
    if not chosen.by_epoch:
        checkpoint = dict(by_epoch=False, interval=often)
        yield _set(log_processor=dict(by_epoch=False))
    hooks: list[Any] = [
        Code('*_base_.custom_hooks'),
        dict(type='KernelSettingsHook'),
    ]
    if chosen.start:
        hooks += _going_on(chosen, rarely)
    elif chosen.images.labelled:
        hooks.append(dict(type='KNNHook', interval=rarely, initial=True))
    yield _set(
        default_hooks=dict(logger=dict(interval=every), checkpoint=checkpoint),
        custom_hooks=hooks,
    )


def _going_on(chosen: Choices, often: int) -> Iterator[dict[str, Any]]:
    """Yield the hooks of a network that has learnt before."""
    if chosen.warm:
        yield dict(type='HeadWarmupHook', iterations=chosen.warm)
    if chosen.queue:
        yield dict(type='FillQueueHook')
    kind, margin = chosen.guard
    data: dict[str, Any] = {}
    if kind != 'KNN':
        near = max(1, min(20, len(chosen.images.paths) // 4))
        data = dict(evaluation=dict(type=kind, k=near))
        data |= dict(bank=Code('watched'), query=Code('watched'))
    yield dict(type='DropGuardHook', interval=often, margin=margin, **data)
