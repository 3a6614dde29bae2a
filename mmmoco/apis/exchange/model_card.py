"""The README.md of a folder of weights: what they are, how they are loaded.

A checkpoint comes from anybody. Its texts stand in code spans, in which
neither Markdown nor HTML means anything; the code is written from numbers,
names of ours and ``repr`` only.
"""

from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import mmmoco
from mmmoco.apis.config.adapt import method_class
from mmmoco.apis.config.python_text import assigned
from mmmoco.convert import resnet, vit
from mmmoco.convert.format import LICENSE_LINKS
from mmmoco.convert.key_table import substitutions
from mmmoco.messages import clipped
from mmmoco.registry import bare_type, value_at

from .export_backbone import Source
from .figures import Figure
from .images import Images
from .timm_model import WRAPPED, TimmModel

PAPERS = {
    'DenseCL': 'https://arxiv.org/abs/2011.09157',
    'MoCo': 'https://arxiv.org/abs/1911.05722',
    'MoCoV1': 'https://arxiv.org/abs/1911.05722',
    'MoCoV2': 'https://arxiv.org/abs/2003.04297',
    'MoCoV3': 'https://arxiv.org/abs/2104.02057',
}
#: What a config of a backbone says about its training.
_TRAINING = {
    *('init_cfg', 'pretrained', 'checkpoint_path', 'frozen_stages'),
    *('norm_eval', 'with_cp', 'stop_grad_conv1', 'drop_rate'),
    *('drop_path_rate', 'zero_init_residual', '_scope_'),
}
#: Our networks for MoCo v3 differ from these only in training.
_PLAIN = {'MoCoV3ResNet': 'ResNet', 'MoCoV3ViT': 'VisionTransformer'}
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {'repr': repr, 'substitutions': substitutions}


def write(
    source: Source,
    model: TimmModel | None,
    images: Images,
    figures: Iterable[Figure],
    license: str,
    onnx: str = '',
) -> str:
    """Return the text of a model card.

    Args:
        source: The backbone.
        model: What it is in timm; None: nothing.
        images: What it takes.
        figures: What was measured on it.
        license: Of the weights, an identifier.
        onnx: What images ``model.onnx`` takes; '' if there is none.
    """
    method = method_name(source)
    given = {} if model is None else model.arguments
    wrapped = model is not None and model.wrapped
    is_vit = 'embed_dim' in given and not wrapped
    backbone, library = _backbone(source, model, is_vit)
    plain_vit = is_vit and not {'qkv_bias', 'init_values', 'final_norm'} & set(
        given
    )
    to_ours: Iterable[tuple[str, str]] = vit.TIMM.rows if is_vit else ()
    if wrapped:
        to_ours = [('{p}', f'{WRAPPED}{{p}}')]
    theirs = {ours: name for name, ours in vit.TORCHVISION.rows}
    groups = {}
    if 'cardinality' in given:
        groups['groups'] = given['cardinality']
        groups['width_per_group'] = given['base_width']
    in_timm = model is not None and not model.small_stem
    tags = ['image-feature-extraction', 'self-supervised-learning', 'mmmoco']
    return _TEMPLATES.get_template('model_card.jinja').render(
        method=method,
        paper=PAPERS.get(method),
        version=mmmoco.__version__,
        front={
            **_license(license),
            'library_name': 'timm' if in_timm else 'mmmoco',
            'pipeline_tag': 'image-feature-extraction',
            'tags': [
                *tags,
                *['timm'] * in_timm,
                *filter(None, [method.lower()]),
            ],
        },
        model=model,
        given=given,
        resnet=model is not None and not is_vit and not wrapped,
        vit=is_vit,
        groups=groups,
        to_ours=to_ours,
        to_torchvision=plain_vit
        and images.size[0] == images.size[1]
        and [(timm, theirs[x]) for timm, x in vit.TIMM.rows if x in theirs],
        to_detectron2=[(x, name) for name, x in resnet.DETECTRON2.rows],
        backbone=assigned('backbone', backbone),
        library=library,
        facts=_facts(source, images),
        images=images,
        image_facts=_image_facts(images),
        levels=images.in_bytes(),
        figures=[_figure(figure) for figure in figures],
        license=license,
        teachers=[
            (span(network), span(licence))
            for network, licence in source.meta.get('teachers', {}).items()
        ],
        onnx=onnx,
    )


def _license(name: str) -> dict[str, str]:
    """Return what the head of a card says of a licence."""
    link = LICENSE_LINKS.get(name)
    if link is None:
        return {'license': name}
    return {'license': 'other', 'license_name': name, 'license_link': link}


def method_name(source: Source) -> str:
    """Return the method if it is one of ours; else it may be any text."""
    name = source.meta.get('method')
    known = method_class(name) is not None
    return str(name).removeprefix('mmmoco.') if known else ''


def span(value: object, most: int = 120) -> str:
    """Return a text of anybody's as a code span, for tables too."""
    text = clipped(str(value), most)
    text = ''.join(c if c.isprintable() else ' ' for c in text)
    text = ' '.join(text.replace('`', "'").split())
    return f'`{text.replace("|", chr(92) + "|")}`' if text else ''


def _facts(source: Source, images: Images) -> list[tuple[str, str]]:
    meta = source.meta
    loader = value_at(source.cfg, 'train_dataloader')
    root = value_at(loader, 'dataset.data_root')
    rows = {
        'method': meta.get('method'),
        'encoder': meta['encoder'],
        'trained on': PurePath(root).name if isinstance(root, str) else None,
        'data set': value_at(loader, 'dataset.type'),
        'epochs': meta.get('epochs'),
        'iterations': meta.get('iterations'),
        'images in a batch (per process)': value_at(loader, 'batch_size'),
        'channels': images.channels,
        'made from': meta.get('source'),
        'hash of the config': meta.get('config_hash'),
    }
    return [
        (name, span(value))
        for name, value in rows.items()
        if isinstance(value, str | int | float) and span(value)
    ]


def _image_facts(images: Images) -> list[tuple[str, str]]:
    height, width = images.size
    rows = [('size', f'{height} × {width} pixels')]
    if images.mean is None or images.std is None:
        rows.append(('mean, std', 'not known: the checkpoint does not tell'))
    else:
        rows += [
            ('mean, of values from 0 to 1', f'`{list(images.mean)}`'),
            ('std', f'`{list(images.std)}`'),
        ]
    if images.channels == 3:
        rows.append(('channels', 'RGB'))
    rows += [
        ('resized', images.interpolation),
        ('kept of the resized side', f'{images.crop:g}'),
    ]
    if images.levels:
        half = len(images.levels) // 2
        for end, levels in enumerate(
            (images.levels[:half], images.levels[half:])
        ):
            numbers = ', '.join(f'{level:g}' for level in levels)
            rows.append((f'raw values that became {end}', numbers))
    return rows


def _figure(figure: Figure) -> tuple[str, str, str]:
    metrics = [f'{span(k)} {v:.2f}' for k, v in figure.metrics.items()]
    setting = ', '.join(f'{k}={v}' for k, v in figure.setting.items())
    return span(figure.task), ', '.join(metrics), span(setting)


def _backbone(
    source: Source, model: TimmModel | None, is_vit: bool
) -> tuple[dict[str, Any], str]:
    """Return a config of the backbone, and the library of its class."""
    config = {k: v for k, v in source.config.items() if k not in _TRAINING}
    kind = str(config.get('type'))
    if model is None or model.wrapped:
        kind = kind if '.' in kind else f'{source.scope}.{kind}'
    else:
        name = bare_type(config)
        kind = f'mmpretrain.{_PLAIN.get(name, name)}'
        config.pop('norm_cfg', None)  # Plain BatchNorm computes the same.
    if is_vit and model is not None:  # Ours knows other names of sizes.
        given = model.arguments
        config['arch'] = dict(
            embed_dims=given['embed_dim'],
            num_layers=given['depth'],
            num_heads=given['num_heads'],
            feedforward_channels=int(given['embed_dim'] * given['mlp_ratio']),
        )
    config['init_cfg'] = dict(type='Pretrained', checkpoint='backbone.pth')
    library = f'{kind.partition(".")[0]}.models'
    return {**config, 'type': kind}, library
