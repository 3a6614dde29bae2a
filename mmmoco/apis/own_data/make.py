"""A recipe, another backbone, own labels: the text of one flat config."""

from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import mmmoco
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.python_text import Code, assigned, said, written
from mmmoco.engine import checkpoint_io
from mmmoco.files import read_file
from mmmoco.messages import shortened
from mmmoco.registry import dicts_in

from . import models
from .data import Data, Wishes, read_data
from .start import Start, read_start

#: Of the ResNets and of the ViTs: recipe, and how many images it is for.
_RECIPES = {
    'det': (
        ('mmdetection/coco/mask-rcnn_r50-fpn_8xb2_1x', 118_287),
        ('mmdetection/coco/mask-rcnn_vit-b_8xb8_100e', 118_287),
    ),
    'seg': (
        ('mmsegmentation/voc12aug/fcn16s_r50_8xb2_30k', 10_582),
        ('mmsegmentation/ade20k/upernet_vit-b_8xb2_160k', 20_210),
    ),
    'cls': (
        ('classification/fine_tune/mocov2_r50_8xb32_30e', 1_281_167),
        ('classification/fine_tune/mocov3_vit-b_8xb64_150e', 1_281_167),
    ),
    'linear': (
        ('classification/linear/mocov2_r50_8xb32_100e', 1_281_167),
        ('classification/linear/mocov3_vit-b_8xb128_90e', 1_281_167),
    ),
}
_V3_LINEAR = 'classification/linear/mocov3_r50_8xb128_90e'
_SCOPES = {
    **{'det': 'mmdet', 'inst': 'mmdet', 'seg': 'mmseg'},
    **dict.fromkeys(('cls', 'linear'), 'mmpretrain'),
}
#: What a recipe holds and a flat config needs, after the rest.
_RUNTIME = (
    *('env_cfg', 'vis_backends', 'visualizer', 'log_processor', 'log_level'),
    *('load_from', 'resume'),
)
_SIZES = ('scale', 'scales', 'crop_size')


@dataclass
class _Plan:
    """What the text says.

    Attributes:
        wishes: What was asked for.
        data: The labels.
        start: The backbone.
        cfg: The recipe, changed.
        images: Of a step.
        name: Of the model.
        why: Reasons, by what they are for.
    """

    wishes: Wishes
    data: Data
    start: Start
    cfg: dict[str, Any]
    images: int
    name: str = ''
    why: dict[str, str] = field(default_factory=dict)

    @property
    def scope(self) -> str:
        return _SCOPES[self.wishes.task]


def make(
    wishes: Wishes,
) -> tuple[str, str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Write the config; see :func:`mmmoco.transfer_config`.

    Returns:
        Path, model, classes, remarks, and the files beside it.
    """
    _check(wishes)
    data, out = read_data(wishes), wishes.out
    with redirect_stdout(StringIO()), catch_warnings():
        # The libraries tell of others that nobody asked for.
        simplefilter('ignore')
        start = read_start(wishes.init)
        plan = _plan(wishes, data, start)
        text = '\n'.join(_text(plan)) + '\n'
    texts = {**data.files, out: text}
    for path, content in texts.items():
        if Path(path).exists() and read_file(path) != content.encode():
            raise FileExistsError(
                f'{path!r} is there already, and would have to be written '
                'beside the config: give --out another name.'
            )
    for path, content in texts.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        checkpoint_io.write_text(path, content)
    with redirect_stdout(StringIO()):
        load_config(out)  # What was written can be read.
    kind = start.kind + str(start.backbone.get('depth', ''))
    return (
        *(out, f'{plan.name} with {kind}', data.classes),
        (*data.remarks, *plan.why.values()),
        tuple(data.files),
    )


def _check(wishes: Wishes) -> None:
    for name in ('image_size', 'batch_size', 'epochs', 'gpus'):
        value = getattr(wishes, name)
        if value is not None and value < 1:
            raise ValueError(
                f'--{name.replace("_", "-")} {value}: it has to be 1 or more.'
            )
    if not wishes.out.endswith('.py'):
        raise ValueError(f'--out {wishes.out!r}: a config ends in .py.')
    if Path(wishes.out).exists():
        raise FileExistsError(
            f'--out: {wishes.out!r} is there already, and may have been '
            'edited: remove it, or give another name.'
        )


def _plan(wishes: Wishes, data: Data, start: Start) -> _Plan:
    """Choose everything."""
    task = 'det' if wishes.task == 'inst' else wishes.task
    modern = not start.batch_norm
    vit_recipe = start.is_vit or (modern and task != 'det')
    recipe, images = _RECIPES[task][vit_recipe]
    if task == 'linear' and start.method == 'MoCoV3' and not modern:
        recipe = _V3_LINEAR
    cfg = load_config(f'benchmarks/{recipe}').to_dict()
    for node in dicts_in(cfg):  # Of the library is all of it.
        node.pop('_scope_', None)
    gpus, per_gpu = map(int, recipe.split('_')[-2].split('xb'))
    batch = wishes.batch_size or (2 if wishes.dense else per_gpu)
    plan = _Plan(wishes, data, start, cfg, batch * wishes.gpus)
    _set_loaders(plan, batch)
    _set_model(plan)
    _set_rate(plan, gpus * per_gpu)
    _set_schedule(plan, gpus * per_gpu, images)
    return plan


def _set_loaders(plan: _Plan, batch: int) -> None:
    """Let the loaders read the data, by pipelines of their own names."""
    cfg, data = plan.cfg, plan.data
    cfg['train_dataloader']['batch_size'] = batch
    for part, name in (('train', 'train'), ('val', 'test')):
        loader = cfg[f'{part}_dataloader']
        recipe = loader['dataset']
        recipe = recipe.get('datasets', [recipe])[0]
        cfg[f'{name}_pipeline'] = recipe['pipeline']
        loader['num_workers'] = min(4, loader.get('num_workers', 4))
        own = data.train if part == 'train' else data.val
        loader['dataset'] = dict(**own, pipeline=Code(f'{name}_pipeline'))
        if plan.scope == 'mmpretrain':
            loader['collate_fn'] = dict(type='default_collate')


def _set_model(plan: _Plan) -> None:
    """Give the model backbone and classes, and the pipelines sizes."""
    wishes, data, start, cfg = plan.wishes, plan.data, plan.start, plan.cfg
    model, n = cfg['model'], len(data.classes)
    new, own, why = models.norms(start, plan.images, wishes.gpus)
    if wishes.dense:
        plan.why['norm'] = why
    if wishes.task == 'seg':
        crop = _crop(wishes, data, start)
        _cut(cfg, crop, max(data.size or (crop, crop)))
        plan.name = models.segmentor(model, start, n, (new, own), crop)
    elif wishes.dense:
        usual = 1024 if start.is_vit else 800
        _resize(cfg, (wishes.image_size or usual) / usual)
        plan.name = models.detector(model, start, n, (new, own))
        if wishes.task == 'det':
            plan.name = models.without_masks(model)
            for step in (*cfg['train_pipeline'], *cfg['test_pipeline']):
                step.pop('with_mask', None)
    else:
        size = wishes.image_size or start.size
        frozen = wishes.task == 'linear'
        _resize(cfg, size / 224)
        model['data_preprocessor'] = cfg['data_preprocessor'] | start.seen
        model['data_preprocessor']['num_classes'] = n
        plan.name = models.classifier(model, start, n, size, frozen)
        data.evaluators['topk'] = models.top(n)


def _resize(cfg: dict[str, Any], factor: float) -> None:
    for name in ('train_pipeline', 'test_pipeline'):
        cfg[name] = models.sized(cfg[name], factor, _SIZES)


def _crop(wishes: Wishes, data: Data, start: Start) -> int:
    """Return the side of the crops of a segmentor."""
    side = wishes.image_size or min(512, *(data.size or ()))
    if start.batch_norm:  # The corners of its maps are aligned.
        return max(2, round(side / 16)) * 16 + 1
    patch: int = start.backbone.get('patch_size', 16)
    return max(2, round(side / patch)) * patch


def _cut(cfg: dict[str, Any], crop: int, side: int) -> None:
    """Let images be scaled around their own size; the test sees all of it."""
    for step in (*cfg['train_pipeline'], *cfg['test_pipeline']):
        step.pop('reduce_zero_label', None)  # The data set says it.
    for step in cfg['train_pipeline']:
        if step['type'] == 'RandomResize':
            step['scale'] = (side, side)
        if step['type'] == 'RandomCrop':
            step['crop_size'] = (crop, crop)
    cfg['test_pipeline'] = [
        step for step in cfg['test_pipeline'] if step['type'] != 'Resize'
    ]


def _set_schedule(plan: _Plan, base: int, images: int) -> None:
    """Scale loop and schedules to the data.

    Args:
        plan: Is changed.
        base: Batch of the recipe.
        images: That it is for.
    """
    cfg, count, loop = plan.cfg, plan.data.count, plan.cfg['train_cfg']
    by_epoch = 'max_epochs' in loop
    name = 'max_epochs' if by_epoch else 'max_iters'
    passes = float(loop[name] if by_epoch else loop[name] * base / images)
    most = 300 if plan.wishes.dense else 100
    usual = max(1, min(most, round(passes * (images / count) ** 0.4)))
    length = epochs = plan.wishes.epochs or usual
    if not by_epoch:
        length = -(-epochs * count // plan.images)
    schedules = cfg['param_scheduler']
    if isinstance(schedules, dict):
        schedules = [schedules]
    cfg['param_scheduler'] = _fitted(schedules, loop[name], length)
    often = max(1, length // 10)
    cfg['train_cfg'] = dict(
        type=f'{"Epoch" if by_epoch else "Iter"}BasedTrainLoop',
        val_interval=often,
        **{name: length},
    )
    cfg['default_hooks']['checkpoint'] = dict(
        type='CheckpointHook',
        by_epoch=by_epoch,
        interval=often,
        max_keep_ckpts=3,
    )
    steps = -(-count // plan.images) if by_epoch else length // 20
    cfg['default_hooks']['logger']['interval'] = max(1, min(50, steps))
    if plan.wishes.epochs is None:
        plan.why['length'] = (
            f'{epochs} epochs: the recipe has {passes:.3g} for {images:,} '
            f'images; fewer images, more epochs'
        )


def _fitted(
    schedules: list[dict[str, Any]], old: int, new: int
) -> list[dict[str, Any]]:
    """Return the schedules of a run of another length.

    A warm-up takes a twentieth of it, or as long as the recipe's.
    """
    warm_up = next((s['end'] for s in schedules if 'start_factor' in s), None)

    def at(point: int) -> int:
        scaled = round(point * new / old)
        if point == warm_up:
            scaled = max(2, scaled, min(point, new // 20))
        return scaled

    result = []
    for schedule in schedules:
        fitted = dict(schedule)
        begin = schedule.get('begin', 0)
        if begin:
            fitted['begin'] = at(begin)
        end = schedule.get('end')
        if 'T_max' in schedule:
            end = begin + schedule['T_max']
            fitted['T_max'] = max(1, at(end) - at(begin))
        if end:
            # Without it a run that is made shorter would cut it.
            fitted['end'] = max(at(begin) + 1, at(end))
        if 'milestones' in schedule:
            fitted['milestones'] = sorted({*map(at, schedule['milestones'])})
        result.append(fitted)
    return result


def _set_rate(plan: _Plan, base: int) -> None:
    """Scale the learning rate to the batch."""
    wrapper = plan.cfg['optim_wrapper']
    # float16 is for GPUs; the tools have --amp.
    wrapper['type'] = 'OptimWrapper'
    wrapper.pop('loss_scale', None)
    if not (plan.start.is_vit or plan.start.batch_norm):
        wrapper.pop('constructor', None)
        wrapper['optimizer'] = dict(
            type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
        )
        wrapper['paramwise_cfg'] = dict(norm_decay_mult=0.0)
        base = 16 if plan.wishes.dense else 512
    optimizer = wrapper['optimizer']
    adam = optimizer['type'] == 'AdamW'
    rate, ratio = optimizer['lr'], plan.images / base
    optimizer['lr'] = float(f'{rate * ratio ** (0.5 if adam else 1.0):.3g}')
    plan.cfg['auto_scale_lr'] = dict(enable=False, base_batch_size=plan.images)
    plan.why['lr'] = (
        f'lr {optimizer["lr"]:g} for {plan.images} images a step: {rate:g} '
        f'for {base}, scaled {"by the square root" if adam else "linearly"}'
    )


# --------------------------------------------------------------------- text


def _text(plan: _Plan) -> Iterator[str]:
    data, start, cfg = plan.data, plan.start, plan.cfg
    scope, model = plan.scope, plan.cfg['model']
    yield said(
        f'{plan.name}, {len(data.classes)} classes; written by mmmoco '
        f'transfer-config {plan.wishes.task}, {mmmoco.__version__}',
        f'It needs nothing of mmmoco: the tools of {scope} run it'
        if 'mmmoco.' not in str(model)
        else 'Its backbone is of mmmoco, which has to be installed',
    )
    yield assigned('default_scope', scope)
    imports = {
        part['type'].split('.')[0]
        for part in dicts_in(model)
        if '.' in str(part.get('type'))
    }
    if imports:
        yield assigned(
            'custom_imports',
            dict(
                imports=[f'{name}.models' for name in sorted(imports)],
                allow_failed_imports=False,
            ),
        )
    yield '\n' + said('Data')
    yield from (said(f'- {remark}') for remark in data.remarks)
    yield from _classes(data, scope)
    for kind, parts in (
        ('pipeline', 'train test'),
        ('dataloader', 'train val'),
    ):
        for name in (f'{part}_{kind}' for part in parts.split()):
            yield assigned(name, cfg[name])
    yield 'test_dataloader = val_dataloader'
    yield assigned('val_evaluator', data.evaluators)
    yield 'test_evaluator = val_evaluator'
    yield '\n' + said(
        f'Model. {_origin(start)}',
        f'norm: {plan.why["norm"]}' if 'norm' in plan.why else '',
    )
    yield assigned('model', model)
    yield '\n' + said('Schedule', plan.why.get('length', ''), plan.why['lr'])
    yield from _schedule(plan)
    yield ''
    yield assigned('default_hooks', cfg['default_hooks'])
    hooks = cfg.get('custom_hooks') or ()
    yield assigned(
        'custom_hooks', [x for x in hooks if 'mmmoco.' not in x['type']]
    )
    if start.init:
        yield said(
            'With mmmoco installed, these lines end a run whose file does '
            'not fill the backbone'
        )
        hook = "dict(type='mmmoco.VerifyPretrainedHook')"
        if start.is_vit and plan.wishes.dense:  # The final norm.
            hook = f"{hook[:-1]}, allow_unexpected=['ln1.*'])"
        yield "# __import__('mmmoco.engine')"
        yield f'# custom_hooks += [{hook}]'
    yield ''
    for name in _RUNTIME:
        if name in cfg:
            yield assigned(name, cfg[name])


def _classes(data: Data, scope: str) -> Iterator[str]:
    if data.numbers:
        yield said(
            'Behind each class its id in the annotation. Classes are found '
            'by name and numbered in the order of that file: their order is '
            'not free'
        )
    ids = list(data.numbers.values()) or range(len(data.classes))
    # A line for each: what lays the rest out takes minutes for a thousand.
    rows = [
        f'    {written(name)},  # {number}'
        for name, number in zip(data.classes, ids, strict=True)
    ]
    yield '\n'.join(['classes = (', *rows, ')'])
    metainfo: dict[str, Any] = dict(classes=Code('classes'))
    if scope != 'mmpretrain':
        metainfo['palette'] = Code('palette')
        yield (
            'palette = [\n    (37 * i % 256, 83 * i % 256, 151 * i % 256)\n'
            f'    for i in range(1, {len(data.classes) + 1})\n]'
        )
    yield assigned('metainfo', metainfo)


def _origin(start: Start) -> str:
    if start.init is None:
        return (
            'Its weights begin at random: mmmoco transfer-config --init CKPT '
            'writes one that starts from a checkpoint'
        )
    return (
        'The backbone is that of '
        f'{shortened(start.init["checkpoint"])}, and so are mean and '
        'standard deviation'
    )


def _schedule(plan: _Plan) -> Iterator[str]:
    cfg, backbone = plan.cfg, plan.cfg['model']['backbone']
    options = cfg['optim_wrapper'].get('paramwise_cfg') or {}
    if 'backbone.layers.11.' in (keys := options.get('custom_keys') or {}):
        depth, _ = models.blocks_of(backbone, plan.scope)
        for name, value in models.layer_decay(keys, depth):
            yield assigned(name, value)
        options['custom_keys'] = Code('rates')
    for name in ('optim_wrapper', 'param_scheduler', 'train_cfg'):
        yield assigned(name, cfg[name])
    for name in ('val_cfg', 'test_cfg', 'auto_scale_lr'):
        yield assigned(name, cfg.get(name) or {})
