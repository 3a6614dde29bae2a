"""Configs of mmpretrain's and mmselfsup's methods as ours."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.runner import Runner

from mmmoco.registry import bare_type

from .fields import Fields
from .openmmlab_views import convert_pipeline
from .preprocessing import IMAGENET

#: Names of transformers that mean the same shape here.
ARCHS = {
    **dict.fromkeys(('mocov3-s', 'mocov3-small'), 'small'),
    **dict.fromkeys(('b', 'base'), 'base'),
    **dict.fromkeys(('l', 'large'), 'large'),
}

#: What a runner of mmengine reads; all other names at the top of a config
#: are variables of the file.
RUNNER_FIELDS = {
    *inspect.signature(Runner).parameters,
    *('custom_imports', 'find_unused_parameters', 'model_wrapper_cfg'),
    'sync_bn',
} - {'cfg'}

#: Fields for which our runtime has its own, each with the reason.
_REPLACED = {
    'default_scope': "'mmmoco' here",
    'env_cfg': 'as in _base_/default_runtime.py',
    'visualizer': 'as in _base_/default_runtime.py',
    'log_processor': 'as in _base_/default_runtime.py',
    'find_unused_parameters': 'not needed: frozen parameters are frozen '
    'before the model is distributed',
    'resume': 'an option of mmmoco train',
    'launcher': 'an option of mmmoco train',
    'custom_imports': 'types carry their scope here',
}

#: Hooks of the foreign runtime that ours has too.
_SAME_HOOKS = {
    'runtime_info': 'RuntimeInfoHook',
    'timer': 'IterTimerHook',
    'logger': 'LoggerHook',
    'param_scheduler': 'ParamSchedulerHook',
    'checkpoint': 'CheckpointHook',
    'sampler_seed': 'DistSamplerSeedHook',
}


class Converted(NamedTuple):
    """A config in our terms, and what became of every field.

    Attributes:
        config: Fields above our bases of runtime and data set.
        unknown: Fields that were not converted, by path: look at these.
        replaced: Fields that something of ours stands in for, and why.
        variables: Names that the runner does not read.
        notes: What was assumed.
        path: Where it was written.
    """

    config: dict[str, Any]
    unknown: dict[str, Any]
    replaced: dict[str, str]
    variables: list[str]
    notes: list[str]
    path: str = ''

    def __str__(self) -> str:
        """Say what became of every field."""
        lines = [f'Not converted: {len(self.unknown)} fields']
        lines += [f'  {path} = {v!r}' for path, v in self.unknown.items()]
        lines.append(f'Ours instead: {len(self.replaced)} fields')
        lines += [f'  {path}: {why}' for path, why in self.replaced.items()]
        if self.variables:
            names = ', '.join(self.variables)
            lines.append(f'Variables that no runner reads: {names}')
        lines += [f'Note: {note}' for note in self.notes]
        lines.append(
            f'Written: {self.path}. Check it: mmmoco verify {self.path}'
        )
        return '\n'.join(lines)


def convert_config(
    source: Mapping[str, Any], archs: Mapping[str, Mapping[str, Any]]
) -> Converted:
    """Convert a pre-training config of mmpretrain or mmselfsup 1.x.

    Args:
        source: The resolved config as plain containers.
        archs: Shapes of mmpretrain's transformers by name.

    Raises:
        ValueError: If it is of an older layout, or of another method.
    """
    fields = Fields(source)
    kind = bare_type(source.get('model', {}))
    if 'train_dataloader' not in source:
        raise ValueError(
            'The config has no train_dataloader: it is written for mmselfsup '
            '0.x. Take the config of the same name from mmselfsup 1.x or '
            'mmpretrain.'
        )
    if kind not in ('MoCo', 'DenseCL', 'MoCoV3'):
        raise ValueError(
            f'model.type={source.get("model", {}).get("type")!r}: only '
            'MoCo, DenseCL and MoCoV3 of mmpretrain and mmselfsup are '
            'converted.'
        )
    v3 = kind == 'MoCoV3'
    convert = _convert_v3 if v3 else _convert_moco
    config: dict[str, Any] = dict(model=convert(fields, archs))
    config['model']['data_preprocessor'] = _preprocessor(fields)
    views = ('view_1', 'view_2') if v3 else ('view_q', 'view_k')
    config['train_dataloader'], unknown = _dataloader(fields, views)
    config['optim_wrapper'] = _optim_wrapper(fields)
    config |= fields.take_all('param_scheduler', 'train_cfg', 'auto_scale_lr')
    if 'base_batch_size' in config.get('auto_scale_lr', {}):
        config['auto_scale_lr'].setdefault('enable', False)
    config.update(_runtime(fields))
    replaced = {n: _REPLACED[n] for n in fields.take_all(*_REPLACED)}
    fields.take('load_from')  # None, else listed below
    if source.get('load_from') is not None:
        unknown['load_from'] = source['load_from']
    variables = [name for name in fields.tree if name not in RUNNER_FIELDS]
    for name in variables:
        fields.take(name)
    return Converted(
        config, {**fields.rest(), **unknown}, replaced, variables, fields.notes
    )


def _convert_moco(fields: Fields, archs: Mapping[str, Any]) -> dict[str, Any]:
    dense = fields.take('model.type').endswith('DenseCL')
    neck = _neck(fields, 'model.neck')
    linear = neck['type'].endswith('LinearNeck')
    temperature = fields.take('model.head.temperature', 1.0)
    _take_loss(fields)
    return dict(
        type='DenseCL' if dense else 'MoCoV1' if linear else 'MoCoV2',
        backbone=_backbone(fields, archs),
        neck=neck,
        dictionary=dict(
            type='Queue',
            size=fields.take('model.queue_len', 65536),
            feat_dim=fields.take('model.feat_dim', 128),
        ),
        loss=dict(type='InfoNCE', temperature=temperature),
        m=_m(fields, 'model.momentum', 0.001),
        **fields.take_all('loss_lambda', below='model'),
    )


def _convert_v3(fields: Fields, archs: Mapping[str, Any]) -> dict[str, Any]:
    fields.take('model.type')
    predictor = _neck(fields, 'model.head.predictor')
    temperature = fields.take('model.head.temperature', 1.0)
    weight = fields.peek('model.head.loss.loss_weight')
    # mmselfsup's head has the factor in its code and no loss in the config.
    scale = weight is None and fields.peek('model.head.loss') is None
    if weight is not None and abs(weight - 2 * temperature) < 1e-9:
        fields.take('model.head.loss.loss_weight')
        scale = True
    _take_loss(fields)
    return dict(
        type='MoCoV3',
        backbone=_backbone(fields, archs),
        neck=_neck(fields, 'model.neck'),
        predictor=predictor,
        dictionary=dict(type='InBatch'),
        loss=dict(
            type='InfoNCE', temperature=temperature, scale_by_2tau=scale
        ),
        m=_m(fields, 'model.base_momentum', 0.01),
        m_schedule='cosine',
    )


def _take_loss(fields: Fields) -> None:
    fields.take_if('model.head.type', 'ContrastiveHead', 'MoCoV3Head')
    for path in ('model.head.loss', 'model.loss'):
        loss = fields.peek(path)
        if isinstance(loss, Mapping):
            if bare_type(loss) == 'CrossEntropyLoss':
                fields.take(f'{path}.type')
            fields.take_if(f'{path}.loss_weight', 1.0)


def _m(fields: Fields, path: str, default: float) -> float:
    value = fields.take(path, default)
    if value >= 0.5:
        fields.notes.append(
            f'{path}={value} was read as m (mmselfsup), the weight of the '
            'old key parameters.'
        )
        return float(value)
    fields.notes.append(
        f'{path}={value} was read as 1 - m (mmpretrain): m={1 - value:g}.'
    )
    return round(1 - value, 12)


def _backbone(fields: Fields, archs: Mapping[str, Any]) -> dict[str, Any]:
    config = dict(fields.take('model.backbone', {}))
    kind = bare_type(config)
    if 'arch' in config and kind in ('MoCoV3ViT', 'VisionTransformer'):
        config['type'] = 'MoCoV3ViT'
        arch = config['arch']
        if isinstance(arch, str):
            known = ARCHS.get(arch.lower())
            if known is None and arch.lower() not in archs:
                raise ValueError(
                    f'model.backbone.arch={arch!r} is no transformer of '
                    'mmpretrain.'
                )
            config['arch'] = known or dict(archs[arch.lower()])
        config.setdefault('stop_grad_conv1', False)
        return config
    config['type'] = f'mmpretrain.{kind}'
    if list(config.get('out_indices', ())) == [4]:
        # mmselfsup's ResNet counts the stem as 0.
        config['out_indices'] = (3,)
        config.setdefault('zero_init_residual', False)
        fields.notes.append(
            'model.backbone.out_indices=[4] is that of mmselfsup: the last '
            'stage is 3 here.'
        )
    return config


def _neck(fields: Fields, path: str) -> dict[str, Any]:
    config = dict(fields.take(path, {}))
    kind = bare_type(config)
    config['type'] = f'mmpretrain.{kind}'
    config.pop('vit_backbone', None)  # the backbone gives the class token
    if kind == 'LinearNeck' and 'with_avg_pool' in config:
        config['gap_dim'] = 2 if config.pop('with_avg_pool') else 0
        config['norm_cfg'] = None
    return config


def _preprocessor(fields: Fields) -> dict[str, Any]:
    own = 'model.data_preprocessor'
    path = own if fields.peek(own) is not None else 'data_preprocessor'
    fields.take_if(f'{path}.type', 'SelfSupDataPreprocessor')
    rgb = {fields.peek(f'{path}.{name}') for name in ('to_rgb', 'bgr_to_rgb')}
    if True in rgb:
        fields.take_if(f'{path}.to_rgb', True)
        fields.take_if(f'{path}.bgr_to_rgb', True)
    else:
        fields.notes.append(
            f'{path} does not turn BGR into RGB; here images are always RGB, '
            'and mean and std were taken in the order that is given.'
        )
    result: dict[str, Any] = dict(type='ViewAugmentor')
    for name in ('mean', 'std'):
        value = fields.take(f'{path}.{name}')
        if value is None:
            fields.notes.append(
                f"{path}.{name} is not stated; ImageNet's is used."
            )
            value = IMAGENET[name]
        result[name] = list(value)
    return result


def _dataloader(
    fields: Fields, views: tuple[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    top = 'train_dataloader'
    result = fields.take_all(
        'batch_size',
        'num_workers',
        'persistent_workers',
        'pin_memory',
        'drop_last',
        below=top,
    )
    if 'drop_last' not in result:
        fields.notes.append(
            'drop_last is not stated; it is True here, since a smaller last '
            'batch would have fewer negatives.'
        )
    fields.take_if(f'{top}.sampler.type', 'DefaultSampler')
    fields.take_if(f'{top}.sampler.shuffle', True)
    fields.take_if(f'{top}.collate_fn', {'type': 'default_collate'})
    data = f'{top}.dataset'
    if bare_type(fields.peek(data, {})) in ('ImageNet', 'CustomDataset'):
        fields.take(f'{data}.type')
    prefix = fields.take(f'{data}.data_prefix')
    if isinstance(prefix, Mapping):
        prefix = prefix.get('img_path')
    split = fields.take(f'{data}.split', 'train')
    if fields.peek(f'{data}.ann_file'):
        fields.notes.append(
            f'{data}.ann_file={fields.take(f"{data}.ann_file")!r} was left '
            'out: all images below data_root/data_prefix are taken.'
        )
    fields.take_if(f'{data}.ann_file', '')
    pipeline, rest = convert_pipeline(
        fields.take(f'{data}.pipeline', []), views
    )
    result['dataset'] = dict(
        type='ImageFolderDataset',
        data_root=fields.take(f'{data}.data_root', 'data/imagenet'),
        data_prefix=(prefix or split).strip('/'),
        pipeline=[dict(type='LoadRGB'), dict(type='Views', views=pipeline)],
    )
    unknown = {f'{data}.pipeline{key}': value for key, value in rest.items()}
    return result, unknown


def _optim_wrapper(fields: Fields) -> dict[str, Any]:
    top = 'optim_wrapper'
    result: dict[str, Any] = dict(type='ContrastOptimWrapper')
    kind = fields.peek(f'{top}.type', 'OptimWrapper')
    if kind in ('OptimWrapper', 'AmpOptimWrapper'):
        fields.take(f'{top}.type')
    if kind == 'AmpOptimWrapper':
        result['dtype'] = fields.take(f'{top}.dtype', 'float16')
    result |= fields.take_all(
        'loss_scale', 'accumulative_counts', 'clip_grad', below=top
    )
    optimizer = dict(fields.take(f'{top}.optimizer', {}))
    if bare_type(optimizer) == 'LARS':
        optimizer['type'] = 'LARS'
        # Ours has the authors' default, mmpretrain's is 0.
        optimizer.setdefault('momentum', 0)
        if 'eta' in optimizer:
            optimizer['trust'] = optimizer.pop('eta')
        _take_lars_exclusions(fields, f'{top}.paramwise_cfg')
    result['optimizer'] = optimizer
    paramwise = fields.take(f'{top}.paramwise_cfg')
    if paramwise:
        result['paramwise_cfg'] = paramwise
    return result


def _take_lars_exclusions(fields: Fields, path: str) -> None:
    excluded = dict(decay_mult=0, lars_exclude=True)
    keys = fields.peek(f'{path}.custom_keys')
    expected = {'bn', 'bias', 'downsample.1'}
    if (
        isinstance(keys, Mapping)
        and keys.keys() <= expected
        and all(dict(value) == excluded for value in keys.values())
    ):
        fields.take(path)
        fields.notes.append(
            f'{path} was left out: LARS here never scales or decays biases '
            'and normalisation.'
        )


def _runtime(fields: Fields) -> dict[str, Any]:
    hooks: dict[str, Any] = {}
    for name, kind in _SAME_HOOKS.items():
        path = f'default_hooks.{name}'
        if bare_type(fields.peek(path, {})) == kind:
            fields.take(f'{path}.type')
        elif fields.peek(f'{path}.type') is not None:
            continue
        if name in ('logger', 'checkpoint'):
            settings = fields.take(path)
            if settings:
                hooks[name] = settings
    fields.take_if(
        'default_hooks.visualization',
        {'type': 'VisualizationHook', 'enable': False},
    )
    randomness = {
        name: value
        for name, value in (fields.take('randomness') or {}).items()
        if value is not None and value is not False  # seed 0 is a seed
    }
    level = fields.take('log_level')
    result = dict(
        default_hooks=hooks,
        randomness=randomness,
        log_level=None if level == 'INFO' else level,
    )
    return {name: value for name, value in result.items() if value}
