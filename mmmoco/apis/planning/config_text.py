"""The choices as a short config, each with its reason, for ``train``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmmoco
from mmmoco.apis.config.python_text import Code, assigned, said

from .choices import Choices
from .images import ARRAYS, Images

_NAMES = {'mocov1': 'MoCo v1', 'mocov2': 'MoCo v2', 'mocov3': 'MoCo v3'}
#: The two views of a method, and those of the bands that suit them.
_VIEWS = {
    'mocov1': ('view_q', 'view_k'),
    'mocov2': ('view_q', 'view_k'),
    'mocov3': ('view_1', 'view_2'),
}


def config_text(chosen: Choices, work_dir: str, lists: list[str]) -> str:
    """Return the config of a pre-training.

    Args:
        chosen: Every choice.
        work_dir: For logs and checkpoints.
        lists: Files that list bank and queries of k-NN; none where the
            folders serve.
    """
    parts = [
        *_head(chosen, work_dir),
        *_data(chosen),
        *_knn(chosen, lists),
        *_model(chosen),
        *_schedule(chosen),
        *_hooks(chosen),
    ]
    return '\n'.join(parts) + '\n'


def _head(chosen: Choices, work_dir: str) -> Iterator[str]:
    images, why = chosen.images, chosen.why
    method, backbone = chosen.method, chosen.backbone
    model = 'mocov3_vit' if backbone.is_vit else 'mocov3_r50'
    if method != 'mocov3':
        model = f'{method}_r50'
    views = 'bands' if images.kind == 'bands' else method
    yield said(
        f'{_NAMES[method]} with {backbone.name}, planned by mmmoco '
        f'{mmmoco.__version__}',
        str(images),
        str(chosen.machine),
    )
    for remark in chosen.remarks:
        yield said(f'Warning: {remark}')
    yield said(f'method: {why["method"]}. Backbone: {why["backbone"]}')
    bases = f'models/{model}', f'views/{views}', 'datasets/loaders'
    yield assigned(
        '_base_',
        [f'mmmoco::_base_/{b}.py' for b in (*bases, 'default_runtime')],
    )
    yield assigned('work_dir', work_dir)
    yield assigned('randomness', dict(seed=chosen.wishes.seed))


def reading(images: Images) -> list[dict[str, Any]]:
    """Return the transforms that make an image of a file."""
    if images.kind == 'bands':
        scale = dict(type='ScaleBands', low=images.low, high=images.high)
        return [dict(type='LoadBands'), *([scale] if images.low else [])]
    if images.low and images.high:
        span = [images.low[0], images.high[0]]
        return [dict(type='LoadRGB', range=span)]
    return [dict(type='LoadRGB')]


def _data(chosen: Choices) -> Iterator[str]:
    images, why = chosen.images, chosen.why
    scale = ''
    if images.kind == 'bands' and images.low:
        scale = 'Mean ± 2 standard deviations of each band become 0 and 255'
    elif images.low:
        scale = (
            'the values that become 0 and 255 are percentiles of the images'
        )
    yield '\n' + said(f'Images: {images.root}', scale)
    yield assigned('read', reading(images))
    yield '\n' + said(f'Views: {why["image_size"]}')
    yield assigned('image_size', chosen.image_size)
    # MoCo v3 takes smaller parts for a ViT.
    least = 0.08 if chosen.backbone.is_vit else 0.2
    yield assigned(
        'crop',
        dict(
            type='FastRandomResizedCrop',
            size=Code('image_size'),
            scale=(least, 1.0),
        ),
    )
    first, second = _VIEWS[chosen.method]
    kinds = (first, second) if images.kind != 'bands' else _VIEWS['mocov3']
    views = {
        name: Code(f'[crop, *_base_.{kind}]')
        for name, kind in zip((first, second), kinds, strict=True)
    }
    yield assigned('views', views)
    if images.kind != 'bands' and not chosen.machine.on_cpu:
        yield '# Colours and blur for whole batches on the GPU, not by cores.'
        yield assigned('device_views', True)
    yield '\n' + said(
        f'Batch: {chosen.batch} images of an optimizer step, {why["batch"]}'
    )
    loader: dict[str, Any] = dict(batch_size=chosen.micro_batch)
    if not chosen.by_epoch:
        loader['sampler'] = dict(infinite=True)
    loader['dataset'] = dict(
        type='ImageFolderDataset',
        data_root=images.root,
        **({'data_prefix': images.prefix} if images.prefix else {}),
        **_extensions(images),
        pipeline=Code("[*read, dict(type='Views', views=views)]"),
    )
    yield assigned('train_dataloader', loader)


def _extensions(images: Images) -> dict[str, Any]:
    return {'extensions': list(ARRAYS)} if images.arrays else {}


def _knn(chosen: Choices, lists: Sequence[str]) -> Iterator[str]:
    images, labelled = chosen.images, chosen.images.labelled
    if labelled is None:
        return
    bank, query = chosen.evaluated
    alone = labelled.query is None
    yield '\n' + said(
        'k-NN on the class folders, before the training and after it',
        f'{bank:,} images vote'
        + (', each on all others' if alone else f' on {query:,} others'),
        f'{lists[0]} lists them: all would take too long' if lists else '',
    )
    sight: list[dict[str, Any]]
    if images.kind == 'bands':
        # torchvision resizes pictures of PIL only.
        sight = [
            dict(
                type='FastRandomResizedCrop',
                size=Code('image_size'),
                scale=(1.0, 1.0),
                ratio=(1.0, 1.0),
            )
        ]
    else:
        near = round(chosen.image_size * 256 / 224)
        sight = [
            dict(type='ToPIL'),
            dict(type='mmpretrain.torchvision/Resize', size=near),
            dict(
                type='mmpretrain.torchvision/CenterCrop',
                size=Code('image_size'),
            ),
        ]
    pipeline = [Code('*read'), *sight, dict(type='PackImage')]
    yield assigned('eval_pipeline', pipeline)
    yield assigned(
        'labelled',
        dict(
            type='ImageFolderDataset',
            data_root=images.root,
            with_labels=True,
            **_extensions(images),
            pipeline=Code('eval_pipeline'),
        ),
    )
    parts = [labelled.train, labelled.train if alone else labelled.val]
    loaders = []
    for number, prefix in enumerate(parts):
        where = f'data_prefix={prefix!r}' if prefix else ''
        if lists:
            where = f'ann_file={lists[0 if alone else number]!r}'
        given = [where] if where else []
        inner = ', '.join([*given, '**labelled'])
        if len(inner) > 50:
            rows = ''.join(f'            {x},\n' for x in given)
            inner = f'\n{rows}            **labelled,\n        '
        loaders.append(
            f'dict(\n        dataset=dict({inner}),\n'
            f'        batch_size={min(64, max(2, bank))},\n'
            '        **_base_.loader,\n    )'
        )
    # Copies of an image are no neighbours of it either.
    k = min(20, max(1, bank // 2))
    yield (
        f'knn = dict(\n    k={k},\n    temperature=0.07,\n'
        "    features='backbone',\n"
        + ('    leave_one_out=True,\n' if alone else '')
        + f'    bank={loaders[0]},\n    query={loaders[1]},\n)'
    )


def backbone_config(chosen: Choices) -> dict[str, Any]:
    """Return the backbone, with the normalisation that the method needs."""
    config = dict(chosen.backbone.config)
    v3 = chosen.method == 'mocov3'
    if chosen.backbone.batch_norm and chosen.backbone.takes_norm:
        norm: dict[str, Any] = dict(type='BN')
        if chosen.splits:
            norm = dict(type='SplitBN', num_splits=chosen.splits)
        elif v3 and chosen.wishes.gpus > 1:
            norm = dict(type='SyncBN')
        config['norm_cfg'] = norm
    if config['type'] in ('mmpretrain.ResNet', 'mmpretrain.ResNeXt'):
        config['zero_init_residual'] = v3  # As published.
    return config


def _model(chosen: Choices) -> Iterator[str]:
    backbone, images, why = chosen.backbone, chosen.images, chosen.why
    v3 = chosen.method == 'mocov3'
    model: dict[str, Any] = dict(
        backbone=dict(_delete_=True, **backbone_config(chosen))
    )
    neck: dict[str, Any] = dict(in_channels=backbone.width)
    if chosen.method == 'mocov2':
        neck['hid_channels'] = backbone.width
    if backbone.pooled:
        neck['with_avg_pool'] = False
    if v3:
        # The heads see vectors; on one process there is nothing to join.
        norm = {}
        if chosen.wishes.gpus == 1:
            norm = dict(norm_cfg=dict(type='BN1d'))
        hidden = {}
        if chosen.machine.on_cpu:
            hidden = dict(hid_channels=1024)
        neck |= hidden | norm
        model['predictor'] = hidden | norm
    model['neck'] = neck
    if chosen.queue:
        model['dictionary'] = dict(size=chosen.queue)
        if chosen.exclude_same_image:
            model['dictionary']['exclude_same_image'] = True
    model['loss'] = dict(temperature=chosen.temperature)
    model['m'] = chosen.m
    model['channels_last'] = True
    if images.mean:
        model['data_preprocessor'] = dict(mean=images.mean, std=images.std)
    yield '\n' + said(
        'Model',
        f'norm: {why["norm"]}' if 'norm' in why else '',
        f'queue {chosen.queue:,}: {why["queue"]}' if chosen.queue else '',
        f'temperature: {why["temperature"]}',
        f'm, the weight of the old keys: {why["m"]}',
        'heads narrower than published, for a CPU'
        if v3 and chosen.machine.on_cpu
        else '',
    )
    yield assigned('model', model)


def _schedule(chosen: Choices) -> Iterator[str]:
    why = chosen.why
    yield '\n' + said(f'Optimizer: lr = {why["lr"]}')
    wrapper: dict[str, Any] = dict(type='ContrastOptimWrapper')
    if chosen.bfloat16:
        wrapper['dtype'] = 'bfloat16'
    if chosen.accumulation > 1:
        wrapper['accumulative_counts'] = chosen.accumulation
    wrapper['optimizer'] = chosen.optimizer
    yield assigned('optim_wrapper', wrapper)
    yield assigned(
        'auto_scale_lr', dict(base_batch_size=chosen.batch, enable=False)
    )
    length, warmup = chosen.length, chosen.warmup
    unit = 'epochs' if chosen.by_epoch else 'iterations'
    passes = f'{chosen.iterations:,} iterations'
    if not chosen.by_epoch:
        passes = f'{chosen.epochs:.3g} times all images'
    yield '\n' + said(
        f'Length: {length:,} {unit}, {passes}, {why["length"]}',
        why['warmup'],
    )
    loop: dict[str, Any] = dict(type='EpochBasedTrainLoop', max_epochs=length)
    counted = Code('dict(by_epoch=True, convert_to_iter_based=True)')
    if not chosen.by_epoch:
        loop = dict(type='IterBasedTrainLoop', max_iters=length)
        counted = Code('dict(by_epoch=False)')
    yield assigned('train_cfg', loop)
    yield assigned('per_iteration', counted)
    schedules = []
    if warmup:
        schedules.append(
            Code(
                f"dict(type='WarmupLR', begin=0, end={warmup}, "
                '**per_iteration)'
            )
        )
    schedules.append(
        Code(
            'dict(\n'
            "        type='CosineAnnealingLR',\n"
            f'        T_max={length - warmup},\n'
            f'        begin={warmup},\n'
            f'        end={length},\n'
            '        **per_iteration,\n'
            '    )'
        )
    )
    inner = ''.join(f'    {s},\n' for s in schedules)
    yield f'param_scheduler = [\n{inner}]'


def _hooks(chosen: Choices) -> Iterator[str]:
    length = chosen.length
    often = -(-length // 10) if chosen.evaluations > 2 else length
    every = min(100, -(-chosen.iterations // 4))
    hooks: dict[str, Any] = dict(
        logger=dict(interval=every), checkpoint=dict(interval=often)
    )
    if not chosen.by_epoch:
        hooks['checkpoint'] = dict(by_epoch=False, interval=often)
        yield '\n' + assigned('log_processor', dict(by_epoch=False))
    else:
        yield ''
    yield assigned('default_hooks', hooks)
    added = ["dict(type='KernelSettingsHook'),  # as --fast chooses"]
    if chosen.images.labelled:
        interval = often if chosen.evaluations > 2 else length
        added.append(
            f"dict(type='KNNHook', interval={interval}, initial=True),"
        )
    inner = ''.join(f'    {line}\n' for line in added)
    yield f'custom_hooks = [\n    *_base_.custom_hooks,\n{inner}]'


def config_path(work_dir: str) -> Path:
    """Return where the config of a work dir lies.

    Not in the work dir itself: there the runner puts the resolved one, by
    the same name and without comments.
    """
    folder = Path(work_dir)
    name = ''.join(c if c.isalnum() or c in '-_' else '_' for c in folder.name)
    return folder / 'plan' / f'{name or "config"}.py'
