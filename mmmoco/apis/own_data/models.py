"""The models of the recipes, with another backbone and other classes."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mmmoco.apis.config.python_text import Code
from mmmoco.registry import dicts_in

from .start import Start, built

Model = dict[str, Any]
#: Fewer images of a step give no statistics for BatchNorm.
_ENOUGH = 8


def norms(start: Start, images: int, gpus: int) -> tuple[Model, Model, str]:
    """Return the norm of new layers, that of a backbone, and why.

    Args:
        start: What the backbone starts from.
        images: Of an optimizer step.
        gpus: That share them.
    """
    if images >= _ENOUGH:
        kind = 'SyncBN' if gpus > 1 else 'BN'
        norm = dict(type=kind, requires_grad=True)
        why = f'{kind}, trained, over the {images} images of a step'
        return norm, dict(norm_cfg=norm, norm_eval=False), why
    group = dict(type='GN', num_groups=32, requires_grad=True)
    why = f'{images} images of a step are too few for BatchNorm: GroupNorm'
    if start.init is None or not start.batch_norm:
        return group, dict(norm_cfg=group, norm_eval=False), why
    why += ' in new layers, the statistics of the file in the backbone'
    kept = dict(norm_cfg=dict(type='BN', requires_grad=True), norm_eval=True)
    return group, kept, why


def detector(
    model: Model, start: Start, classes: int, norm: tuple[Model, Model]
) -> str:
    """Change the Mask R-CNN of a recipe; return its name.

    Args:
        model: Of the recipe: of the ResNets, or of the ViTs.
        start: Its backbone.
        classes: Their number.
        norm: Of new layers, and of the backbone.
    """
    _set_norms(model, norm[0])
    heads = model['roi_head']
    heads['bbox_head']['num_classes'] = classes
    heads['mask_head']['num_classes'] = classes
    if start.is_vit:
        vit, width = _feature_maps(start, 'mmdet', 224, 4)
        pyramid, fpn = model['neck']
        pyramid['embed_dim'] = width
        fpn['in_channels'] = [width] * 4
        patch = vit.get('patch_size', 16)
        if patch % 4:
            raise ValueError(
                f'Patches of {patch} pixels make no maps for a detector: 4, '
                '8 or 16 do.'
            )
        strides = [patch // 4, patch // 2, patch, 2 * patch, 4 * patch]
        model['rpn_head']['anchor_generator']['strides'] = strides
        for part in ('bbox_roi_extractor', 'mask_roi_extractor'):
            heads[part]['featmap_strides'] = strides[:4]
        model['data_preprocessor']['pad_size_divisor'] = 2 * patch
        model['backbone'] = vit
    else:
        model['backbone'], widths = _stages(start, 'mmdet', norm[1])
        model['neck']['in_channels'] = widths
    model['data_preprocessor'].update(start.seen)
    return 'Mask R-CNN'


def without_masks(model: Model) -> str:
    """Make a Mask R-CNN a Faster R-CNN; return its name."""
    model['type'] = 'FasterRCNN'
    model['data_preprocessor'].pop('pad_mask', None)
    for part in ('mask_roi_extractor', 'mask_head'):
        del model['roi_head'][part]
    del model['train_cfg']['rcnn']['mask_size']
    del model['test_cfg']['rcnn']['mask_thr_binary']
    return 'Faster R-CNN'


def segmentor(
    model: Model,
    start: Start,
    classes: int,
    norm: tuple[Model, Model],
    crop: int,
) -> str:
    """Change the FCN-16s, or the UPerNet, of a recipe; return its name."""
    _set_norms(model, norm[0])
    heads = [model['decode_head']]
    if start.batch_norm:
        role: Model = dict(dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1))
        if start.backbone['type'] == 'ResNet':  # Others never contract it.
            role['contract_dilation'] = False
        model['backbone'], widths = _stages(start, 'mmseg', norm[1], **role)
        heads[0]['in_channels'] = widths[-1]
    else:
        heads.append(model['auxiliary_head'])
        if start.is_vit:
            model['backbone'], width = _feature_maps(start, 'mmseg', crop, 4)
            model['neck']['embed_dim'] = width
            widths = [width] * 4
        else:
            model['backbone'], widths = _stages(start, 'mmseg', norm[1])
            del model['neck']
        heads[0].update(in_channels=widths, channels=min(widths[-1], 768))
        heads[1]['in_channels'] = widths[heads[1]['in_index']]
        stride = crop * 2 // 3
        model['test_cfg'] = dict(
            mode='slide', crop_size=(crop, crop), stride=(stride, stride)
        )
    for head in heads:
        head['num_classes'] = classes
    model['data_preprocessor']['size'] = (crop, crop)
    model['data_preprocessor'].update(start.seen)
    return 'FCN-16s' if start.batch_norm else 'UPerNet'


def classifier(
    model: Model, start: Start, classes: int, size: int, frozen: bool
) -> str:
    """Change the classifier of a recipe; return its name.

    Raises:
        ValueError: If the backbone cannot be frozen.
    """
    role: Model = {}
    if start.is_vit:
        depth, width = blocks_of(start.placed(), 'mmpretrain')
        rate = model['backbone'].get('drop_path_rate', 0.0)
        role = dict(frozen_stages=depth) if frozen else {}
        role.update(img_size=size, drop_path_rate=rate)
    else:
        if frozen and not start.batch_norm:
            raise ValueError(
                f'linear: {start.kind} cannot be frozen as a whole here; use '
                'cls, or mmmoco probe on its features.'
            )
        if start.batch_norm:
            role['out_indices'] = (3,)
        if frozen:
            role['frozen_stages'] = 4
        output = built(start.placed(**role), 'mmpretrain')(_blank())[-1]
        width = output.shape[1]
        pooled = dict(type='GlobalAveragePooling')
        model['neck'] = pooled if output.dim() == 4 else None
    model['backbone'] = start.placed(**role)
    model['head'].update(num_classes=classes, in_channels=width)
    if 'topk' in model['head']:
        model['head']['topk'] = top(classes)
    return 'linear classifier' if frozen else 'classifier'


def top(classes: int) -> tuple[int, ...]:
    """Return the k of top-k accuracy."""
    return (1, 5) if classes > 5 else (1,)


def layer_decay(keys: Model, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield names and values of a config: rates that fall from block to block.

    The last is called ``rates``.

    Args:
        keys: Of the recipe: a ViT of twelve blocks.
        depth: Of this one.
    """
    place = 'backbone.layers.'
    decay: float = keys[f'{place}11.']['lr_mult']
    yield (
        'before_blocks',
        {
            name: {**value, 'lr_mult': decay ** (depth + 1)}
            for name, value in keys.items()
            if not name.startswith(place)
        },
    )
    first = f'{place}0.'
    parts = {}
    for name, value in keys.items():
        if name.startswith(first):
            rest = {k: v for k, v in value.items() if k != 'lr_mult'}
            parts[name.removeprefix(first)] = rest
    yield 'in_blocks', parts
    yield (
        'rates',
        Code(
            '{\n'
            '    **before_blocks,\n'
            '    **{\n'
            f"        f'{place}{{i}}.{{part}}': dict(\n"
            f'            lr_mult={decay} ** ({depth} - i), **other\n'
            '        )\n'
            f'        for i in range({depth})\n'
            '        for part, other in in_blocks.items()\n'
            '    },\n'
            '}'
        ),
    )


def blocks_of(backbone: Model, scope: str) -> tuple[int, int]:
    """Return number and width of the blocks of a ViT."""
    module: Any = built(backbone, scope)
    return module.num_layers, module.embed_dims


def _feature_maps(
    start: Start, scope: str, size: int, maps: int
) -> tuple[Model, int]:
    """Return a ViT whose blocks give maps, evenly chosen; and its width."""
    depth, width = blocks_of(start.placed(), scope)
    backbone = start.placed(
        img_size=size,
        drop_path_rate=0.1,
        out_type='featmap',
        out_indices=[depth * (i + 1) // maps - 1 for i in range(maps)],
        final_norm=False,
    )
    return backbone, width


def _stages(
    start: Start, scope: str, norm: Model, **role: Any
) -> tuple[Model, list[int]]:
    """Return a backbone that gives the maps of four stages; their widths.

    Raises:
        ValueError: If it does not shrink the image as the models expect.
    """
    role['out_indices'] = (0, 1, 2, 3)
    if start.batch_norm:
        role.update(norm, frozen_stages=-1)
    if start.kind == 'ConvNeXt':
        role['gap_before_final_norm'] = False
    backbone = start.placed(**role)
    maps = built(backbone, scope)(_blank())
    smaller = [_SIDE // found.shape[-1] for found in maps]
    if smaller[0] != 4:
        raise ValueError(
            f'The first map of this backbone is {smaller[0]} times smaller '
            'than the image, not 4 times: it was made for small images.'
        )
    if scope == 'mmdet' and smaller != [4, 8, 16, 32]:
        raise ValueError(
            f'The maps of this backbone are {smaller} times smaller than the '
            'image; a detector needs 4, 8, 16 and 32: it has other strides.'
        )
    return backbone, [found.shape[1] for found in maps]


_SIDE = 64


def _blank() -> torch.Tensor:
    return torch.zeros(1, 3, _SIDE, _SIDE, device='meta')


def _set_norms(model: Model, norm: Model) -> None:
    """Give the new layers a norm."""
    for part in dicts_in(model):
        if part is not model['backbone'] and 'norm_cfg' in part:
            part['norm_cfg'] = dict(norm)


def sized(node: Any, factor: float, keys: Sequence[str]) -> Any:
    """Return a part of a config with other sizes of images."""
    if isinstance(node, dict):
        return {
            k: _scaled(v, factor) if k in keys else sized(v, factor, keys)
            for k, v in node.items()
        }
    if isinstance(node, list | tuple):
        return [sized(value, factor, keys) for value in node]
    return node


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_scaled(x, factor) for x in value)
    return round(value * factor)
