"""The README.md of a folder of weights: what they are, how they are loaded.

A checkpoint comes from anybody. Its texts stand in code spans, in which
neither Markdown nor HTML means anything; the code is written from numbers,
names of ours and ``repr`` only.
"""

import json
import re
from collections.abc import Iterable, Mapping
from keyword import iskeyword
from pathlib import PurePath
from typing import Any

import mmmoco
from mmmoco.apis.config.adapt import method_class
from mmmoco.convert import resnet, vit
from mmmoco.messages import clipped

from .export_backbone import Source
from .figures import Figure
from .images import Images
from .timm_model import WRAPPED, TimmModel

PAPERS = {
    'MoCo': 'https://arxiv.org/abs/1911.05722',
    'MoCoV1': 'https://arxiv.org/abs/1911.05722',
    'MoCoV2': 'https://arxiv.org/abs/2003.04297',
    'MoCoV3': 'https://arxiv.org/abs/2104.02057',
}
#: What a config of a backbone says about its training.
_TRAINING = {
    'init_cfg',
    'pretrained',
    'checkpoint_path',
    'frozen_stages',
    'norm_eval',
    'with_cp',
    'stop_grad_conv1',
    'drop_rate',
    'drop_path_rate',
    'zero_init_residual',
    '_scope_',
}
_STAGES = {
    18: ('BasicBlock', [2, 2, 2, 2]),
    34: ('BasicBlock', [3, 4, 6, 3]),
    50: ('Bottleneck', [3, 4, 6, 3]),
    101: ('Bottleneck', [3, 4, 23, 3]),
    152: ('Bottleneck', [3, 8, 36, 3]),
}


def write(
    source: Source,
    model: TimmModel | None,
    images: Images,
    figures: Iterable[Figure],
    license: str,
    onnx: bool = False,
) -> str:
    """Return the text of a model card.

    Args:
        source: The backbone.
        model: What it is in timm; None: nothing.
        images: What it takes.
        figures: What was measured on it.
        license: Of the weights, an identifier.
        onnx: Whether ``model.onnx`` stands beside it.
    """
    name = method_name(source)
    title = f'{name or "Self-supervised"} backbone'
    if model is not None:
        title += f' ({model.architecture})'
    parts = [
        _front_matter(name, license, timm=_in_config(model)),
        f'# {title}',
        'Features of images, learnt without labels'
        + (f' by {name}' if name else '')
        + (f' ([paper]({PAPERS[name]}))' if name in PAPERS else '')
        + f'; written by mmmoco {mmmoco.__version__}.',
        _table(('', ''), _facts(source, images)),
        '## Images',
        _table(('', ''), _image_facts(images)),
        '## Figures',
        _figures(figures),
        '## Loading',
        'Run in this folder.',
        *_loading(source, model, images, onnx),
        '## Licence',
        f'`{license}`'
        + (
            ': nobody said under which licence these weights may be used. '
            'Say it in the head of this file before you publish them.'
            if license == 'unknown'
            else ''
        ),
    ]
    return '\n\n'.join(part for part in parts if part) + '\n'


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


def _front_matter(method: str, license: str, timm: bool) -> str:
    """Return the head of the card: YAML, which takes JSON for values."""
    fields = {
        'license': license,
        'library_name': 'timm' if timm else 'mmmoco',
        'pipeline_tag': 'image-feature-extraction',
        'tags': [
            'image-feature-extraction',
            'self-supervised-learning',
            'mmmoco',
            *(['timm'] if timm else []),
            *([method.lower()] if method else []),
        ],
    }
    lines = [f'{key}: {json.dumps(value)}' for key, value in fields.items()]
    return '\n'.join(['---', *lines, '---'])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ('---',) * len(head), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _facts(source: Source, images: Images) -> list[tuple[str, str]]:
    meta = source.meta
    cfg = source.cfg.to_dict() if source.cfg is not None else {}
    loader = _below(cfg, 'train_dataloader')
    data = _below(loader, 'dataset')
    root = data.get('data_root')
    rows = {
        'method': meta.get('method'),
        'encoder': meta['encoder'],
        'trained on': PurePath(root).name if isinstance(root, str) else None,
        'data set': data.get('type'),
        'epochs': meta.get('epochs'),
        'iterations': meta.get('iterations'),
        'images in a batch (per process)': loader.get('batch_size'),
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
        low, high = images.levels[0], images.levels[-1]
        rows.append(('values that became 0 and 1', f'{low:g}, {high:g}'))
    return rows


def _figures(figures: Iterable[Figure]) -> str:
    rows = [
        (
            span(figure.task),
            ', '.join(
                f'{span(name)} {value:.2f}'
                for name, value in figure.metrics.items()
            ),
            span(', '.join(f'{k}={v}' for k, v in figure.setting.items())),
        )
        for figure in figures
    ]
    if not rows:
        return 'None was measured.'
    head = ('task', 'figures in percent', 'setting')
    return _table(head, rows)


def _loading(
    source: Source, model: TimmModel | None, images: Images, onnx: bool
) -> list[str]:
    ours = _ours(source, model, images)
    end = ['ONNX, any number of images:', _code(_onnx(images))] if onnx else []
    if model is None:
        return ['OpenMMLab:', *_openmmlab(ours, images, None), *end]
    if model.wrapped:
        rows = [('{p}', f'{WRAPPED}{{p}}')]
        return [
            'timm (features of all positions; for one vector give '
            "`global_pool='avg'`, or `'token'`, if the network has one):",
            _code(_timm(model, images)),
            'mmpretrain, mmdet and mmseg, with timm:',
            *_openmmlab(ours, images, rows),
            *end,
        ]
    is_vit = model.classifier == 'head'
    parts = ['timm:', _code(_timm(model, images))]
    in_torchvision = _torchvision(model, images)
    if in_torchvision:
        parts += ['torchvision:', _code(in_torchvision)]
    parts.append('mmpretrain, mmdet and mmseg read .pth:')
    parts += _openmmlab(ours, images, vit.TIMM.rows if is_vit else None)
    if is_vit:
        parts.append(
            "For feature maps add `out_type='featmap'` to this backbone."
        )
    elif not model.small_stem and 'channels' not in model.arguments:
        parts.append(
            "mmdet's own class does too: `type='ResNeXt'`, with `base_width` "
            'for `width_per_group`.'
            if 'cardinality' in model.arguments
            else "mmdet's and mmseg's own class does too: `type='ResNet'` (in "
            'mmseg with `strides=(1, 2, 2, 2)`, `dilations=(1, 1, 1, 1)`).'
        )
        parts += ['Detectron2:', *_detectron2(model, images)]
    return [*parts, *end]


def _in_config(model: TimmModel | None) -> bool:
    """Whether timm's config.json can say what the network is."""
    return model is not None and not model.small_stem


def _timm(model: TimmModel, images: Images) -> str:
    if _in_config(model):
        return (
            'import timm\n\n'
            "# On the Hub: 'hf-hub:USER/NAME'. For training, num_classes=10.\n"
            "net = timm.create_model('local-dir:.', pretrained=True)\n"
            'settings = timm.data.resolve_model_data_config(net)\n'
        )
    return (
        'import timm\n'
        'from safetensors.torch import load_file\n'
        'from torch import nn\n\n'
        '# No config of timm tells a stem of small images.\n'
        f'net = timm.create_model({model.architecture!r}, num_classes=0'
        + ''.join(f', {k}={v!r}' for k, v in model.arguments.items())
        + f')\n{_small_stem(images)}'
        "net.load_state_dict(load_file('model.safetensors'))\n"
    )


def _small_stem(images: Images) -> str:
    return (
        f'net.conv1 = nn.Conv2d({images.channels}, 64, 3, padding=1, '
        'bias=False)\nnet.maxpool = nn.Identity()\n'
    )


def _torchvision(model: TimmModel, images: Images) -> str:
    """Return how torchvision loads it; '' if it has no such network."""
    given = model.arguments
    head = (
        'import torchvision\n'
        'from safetensors.torch import load_file\n'
        'from torch import nn\n\n'
    )
    if model.classifier == 'fc':
        if 'channels' in given:
            return ''
        block, stages = _STAGES[_depth(model)]
        more = ''
        if 'cardinality' in given:
            more = (
                f', groups={given["cardinality"]}, '
                f'width_per_group={given["base_width"]}'
            )
        stem = ''
        if model.small_stem:
            stem = _small_stem(images)
        elif images.channels != 3:
            stem = (
                f'net.conv1 = nn.Conv2d({images.channels}, 64, 7, 2, 3, '
                'bias=False)\n'
            )
        return (
            f'{head}resnet = torchvision.models.resnet\n'
            f'net = resnet.ResNet(resnet.{block}, {stages}{more})\n'
            f'net.fc = nn.Identity()\n{stem}'
            "net.load_state_dict(load_file('model.safetensors'))\n"
        )
    height, width = images.size
    if height != width or {'qkv_bias', 'init_values', 'final_norm'} & set(
        given
    ):
        return ''
    patch, dims = given['patch_size'], given['embed_dim']
    names = {ours: theirs for theirs, ours in vit.TORCHVISION.rows}
    rows = [
        (timm, names[ours]) for timm, ours in vit.TIMM.rows if ours in names
    ]
    stem = ''
    if images.channels != 3:
        stem = (
            f'net.conv_proj = nn.Conv2d({images.channels}, {dims}, {patch}, '
            f'{patch})\n'
        )
    return (
        f'import re\n\n{head}'
        'net = torchvision.models.VisionTransformer(\n'
        f'    image_size={height},\n    patch_size={patch},\n'
        f'    num_layers={given["depth"]},\n'
        f'    num_heads={given["num_heads"]},\n'
        f'    hidden_dim={dims},\n'
        f'    mlp_dim={int(dims * given["mlp_ratio"])},\n)\n'
        f'net.heads = nn.Identity()\n{stem}{_renaming(rows)}'
        'net.load_state_dict(renamed)\n'
    )


def _openmmlab(
    backbone: str,
    images: Images,
    rows: Iterable[tuple[str, str]] | None,
) -> list[str]:
    """Return how the weights become a .pth, and what a config says."""
    if rows is None:
        code = (
            'import torch\nfrom safetensors.torch import load_file\n\n'
            "weights = load_file('model.safetensors')\n"
            "torch.save({'state_dict': weights}, 'backbone.pth')\n"
        )
    else:
        code = (
            'import re\n\nimport torch\n'
            f'from safetensors.torch import load_file\n\n{_renaming(rows)}'
            "torch.save({'state_dict': renamed}, 'backbone.pth')\n"
        )
    config = backbone
    if images.mean and images.std:
        levels = {
            name: [round(255 * value, 4) for value in values]
            for name, values in (('mean', images.mean), ('std', images.std))
        }
        config += (
            '# Into data_preprocessor; the images are read as BGR there.\n'
            f'mean = {levels["mean"]}\nstd = {levels["std"]}\n'
            + ('bgr_to_rgb = True\n' if images.channels == 3 else '')
        )
    return [_code(code), _code(config)]


def _ours(source: Source, model: TimmModel | None, images: Images) -> str:
    """Return the lines of a config that build the backbone."""
    channels = {} if images.channels == 3 else {'in_channels': images.channels}
    where, backbone = 'mmpretrain.models', dict[str, Any]()
    if model is None or model.wrapped:
        backbone = {
            name: value
            for name, value in source.config.items()
            if name not in _TRAINING
        }
        kind = backbone.get('type')
        if isinstance(kind, str) and '.' not in kind:
            kind = backbone['type'] = f'{source.scope}.{kind}'
        where = f'{str(kind).partition(".")[0]}.models'
    elif model.classifier == 'head':
        given = model.arguments
        width = given['embed_dim']
        backbone = dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(
                embed_dims=width,
                num_layers=given['depth'],
                num_heads=given['num_heads'],
                feedforward_channels=int(width * given['mlp_ratio']),
            ),
            img_size=tuple(given['img_size']),
            patch_size=given['patch_size'],
            **channels,
        )
        if not given.get('qkv_bias', True):
            backbone['qkv_bias'] = False
        if 'init_values' in given:
            backbone['layer_scale_init_value'] = given['init_values']
        if not given.get('final_norm', True):
            backbone['final_norm'] = False
    else:
        kind = 'ResNet_CIFAR' if model.small_stem else 'ResNet'
        backbone = dict(
            type=f'mmpretrain.{kind}', depth=_depth(model), **channels
        )
        if 'cardinality' in model.arguments:
            backbone['type'] = 'mmpretrain.ResNeXt'
            backbone['groups'] = model.arguments['cardinality']
            backbone['width_per_group'] = model.arguments['base_width']
        if 'channels' in model.arguments:
            backbone['base_channels'] = model.arguments['channels'][0]
    backbone['init_cfg'] = dict(type='Pretrained', checkpoint='backbone.pth')
    return (
        f'custom_imports = dict(imports=[{where!r}])\n'
        f'backbone = {_dict_text(backbone)}\n'
    )


def _dict_text(value: Any, indent: str = '') -> str:
    """Return a dict as a config has it."""
    if not isinstance(value, Mapping) or not all(map(_is_name, value)):
        return repr(value)
    inner = f'{indent}    '
    lines = [
        f'{inner}{name}={_dict_text(each, inner)},\n'
        for name, each in value.items()
    ]
    return f'dict(\n{"".join(lines)}{indent})'


def _is_name(key: object) -> bool:
    return isinstance(key, str) and key.isidentifier() and not iskeyword(key)


def _detectron2(model: TimmModel, images: Images) -> list[str]:
    rows = [(ours, theirs) for theirs, ours in resnet.DETECTRON2.rows]
    code = (
        'import pickle\nimport re\n\n'
        f'from safetensors.torch import load_file\n\n{_renaming(rows)}'
        'model = {name: value.numpy() for name, value in renamed.items()}\n'
        "content = {'model': model, '__author__': 'mmmoco', "
        "'matching_heuristics': True}\n"
        "with open('backbone.pkl', 'wb') as file:\n"
        '    pickle.dump(content, file)\n'
    )
    settings = [
        'MODEL.WEIGHTS backbone.pkl',
        f'MODEL.RESNETS.DEPTH {_depth(model)}',
        'MODEL.RESNETS.STRIDE_IN_1X1 False',
        'INPUT.FORMAT RGB',
    ]
    if 'cardinality' in model.arguments:
        settings += [
            f'MODEL.RESNETS.NUM_GROUPS {model.arguments["cardinality"]}',
            f'MODEL.RESNETS.WIDTH_PER_GROUP {model.arguments["base_width"]}',
        ]
    if images.mean and images.std:
        settings += [
            f'MODEL.PIXEL_MEAN {[round(255 * v, 4) for v in images.mean]}',
            f'MODEL.PIXEL_STD {[round(255 * v, 4) for v in images.std]}',
        ]
    return [_code(code), _code('\n'.join(settings) + '\n', 'text')]


def _onnx(images: Images) -> str:
    height, width = images.size
    return (
        'import numpy as np\nimport onnxruntime\n\n'
        "session = onnxruntime.InferenceSession('model.onnx')\n"
        '# Normalised as above.\n'
        f'images = np.zeros((2, {images.channels}, {height}, {width}), '
        'np.float32)\n'
        "features = session.run(None, {'images': images})[0]\n"
    )


def _renaming(rows: Iterable[tuple[str, str]]) -> str:
    """Return code that gives weights other names, by a table of names."""
    patterns = [
        (_pattern(before), _replacement(before, after))
        for before, after in rows
    ]
    lines = [f'    ({old!r}, {new!r}),' for old, new in patterns]
    return '\n'.join(
        [
            'names = [',
            *lines,
            ']',
            'renamed = {}',
            "for name, value in load_file('model.safetensors').items():",
            '    for old, new in names:',
            '        if re.fullmatch(old, name):',
            '            name = re.sub(old, new, name)',
            '            break',
            '    renamed[name] = value',
            '',
        ]
    )


def _pattern(template: str) -> str:
    pieces = re.split(r'\{(\w)\}', template)
    groups = [r'(.+)' if name == 'p' else r'(\d+)' for name in pieces[1::2]]
    plain = [re.escape(piece) for piece in pieces[::2]]
    return ''.join(
        text + group for text, group in zip(plain, [*groups, ''], strict=True)
    )


def _replacement(before: str, after: str) -> str:
    order = re.findall(r'\{(\w)\}', before)
    return re.sub(
        r'\{(\w)\}', lambda found: rf'\g<{order.index(found[1]) + 1}>', after
    )


def _code(text: str, language: str = 'python') -> str:
    return f'```{language}\n{text.rstrip()}\n```'


def _depth(model: TimmModel) -> int:
    return int(model.architecture.removeprefix('resnet'))


def _below(node: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = node.get(name)
    return found if isinstance(found, Mapping) else {}
