"""From the layout of another library to ours."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor

from mmmoco.messages import few

from .format import DUPLICATE, Format, Told
from .formats import FORMATS
from .positions import resize_positions

#: Tops of our state dicts, in the order in which they are reported.
MODULES = (
    *('backbone', 'neck', 'predictor', 'key_encoder'),
    *('dictionary', 'dense_dictionary'),
)

#: What query, key and value are called in transformers.
_PARTS = {
    'query': ('query', 'key', 'value'),
    'q_proj': ('q_proj', 'k_proj', 'v_proj'),
}
_KEY_BIAS = re.compile(r'\.(key|k_proj)\.bias$')
_QUERY = re.compile(rf'(.*\.)({"|".join(_PARTS)})\.(weight|bias)')


class Imported(NamedTuple):
    """What came of a foreign state dict.

    Attributes:
        weights: Tensors by our names.
        format: The layout that was recognised.
        left: Keys that were left behind, each with the reason.
        notes: What else a user should know.
        told: What the values of tensors tell.
    """

    weights: dict[str, Tensor]
    format: Format
    left: dict[str, str]
    notes: list[str]
    told: Told = Told()


def recognise(names: Iterable[str]) -> Format:
    """Tell the layout of a checkpoint by its keys.

    Args:
        names: All keys of the state dict.

    Raises:
        ValueError: If none fits, or more than one.
    """
    names = list(names)
    found = [each for each in FORMATS.values() if _fits(each, names)]
    if len(found) == 1:
        return found[0]
    if found:
        titles = ', '.join(f'{each.name} ({each.title})' for each in found)
        problem = f'fit several layouts: {titles}. Choose one with --from'
    else:
        problem = (
            'fit no layout that is known here. Name the nearest one with '
            f'--from ({", ".join(FORMATS)})'
        )
    raise ValueError(
        f'The keys of the checkpoint {problem}. Seen: {_summary(names)}.'
    )


def import_weights(
    source: Mapping[str, Tensor],
    layout: str | None = None,
    drop: Iterable[str] = (),
) -> Imported:
    """Rename a foreign state dict to ours, all or nothing.

    Args:
        source: Tensors by their names, without ``module.`` in front.
        layout: Name of the format; None: told by the keys.
        drop: Shell patterns of keys to leave behind.

    Raises:
        ValueError: If the format is unknown or not recognised, or a key is
            neither known nor dropped, or what should be there twice differs.
    """
    if layout is not None and layout not in FORMATS:
        raise ValueError(
            f'--from {layout}: there is no such layout. Use one of '
            f'{", ".join(FORMATS)}.'
        )
    form = FORMATS[layout] if layout else recognise(source)
    if form.split_qkv:
        source = _joined(source)
    patterns = tuple(drop)
    weights: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    unknown = []
    for name, value in source.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            left[name] = 'dropped as asked'
        elif (ours := _our_name(form, name)) is not None:
            if ours in weights:
                raise ValueError(
                    f'{name} and another key both become {ours}: the file '
                    f'is no {form.title}.'
                )
            weights[ours] = value
        elif (reason := _reason(form, name)) is not None:
            left[name] = reason
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f'{len(unknown)} keys do not belong to {form.title}: '
            f'{few(unknown, 8)}. Leave them behind with --drop, or say with '
            '--from which layout it is.'
        )
    if not any(name.startswith('backbone.') for name in weights):
        raise ValueError(
            f'The checkpoint, read as {form.title}, holds no backbone. Seen: '
            f'{_summary(source)}.'
        )
    _check_duplicates(weights, source, left)
    told = form.finish(weights, source)
    notes = [
        note
        for name in ('dictionary', 'dense_dictionary')
        for note in _shape_queue(weights, name, form.queue)
    ]
    return Imported(weights, form, left, [*notes, *told.notes], told)


def resize_all_positions(weights: dict[str, Tensor], side: int) -> list[str]:
    """Interpolate the position embeddings of all encoders, in place.

    Args:
        weights: Tensors by our names.
        side: Side of the new grid, in patches.

    Returns:
        The names of those that changed.
    """
    changed = []
    for name in list(weights):
        # That of a frozen teacher, teacher.pos_embed, has a size of its own.
        if f'.{name}'.endswith('.backbone.pos_embed'):
            new = resize_positions(weights[name], side)
            if new is not weights[name]:
                weights[name] = new
                changed.append(name)
    return changed


def count_by_module(names: Iterable[str]) -> dict[str, int]:
    """Count keys by the module that they belong to, for a report."""
    counts = Counter(name.split('.')[0] for name in names)
    return {top: counts[top] for top in (*MODULES, *counts) if counts[top]}


def _fits(form: Format, names: list[str]) -> bool:
    def has(sign: str) -> bool:
        return any(re.match(sign, name) for name in names)

    return all(map(has, form.signs)) and not any(map(has, form.never))


def _our_name(form: Format, name: str) -> str | None:
    found = (part.to_ours(name) for part in form.parts)
    return next(filter(None, found), None)


def _joined(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put query, key and value into one tensor, called ``qkv``.

    Where no key of the file has a bias, it is zero. What lacks more stays as
    it is, and is not known by its name.
    """
    joined = dict(source)
    without = not any(_KEY_BIAS.search(name) for name in source)
    for name in source:
        match = _QUERY.fullmatch(name)
        if match is None:
            continue
        stem, query, what = match.groups()
        names = [f'{stem}{x}.{what}' for x in _PARTS[query]]
        q, k, v = map(source.get, names)
        if k is None and what == 'bias' and without:
            k = torch.zeros_like(source[name])
        if q is None or k is None or v is None:
            continue
        if q.shape == k.shape == v.shape and q.dim():
            for each in names:
                joined.pop(each, None)
            joined[f'{stem}qkv.{what}'] = torch.cat([q, k, v])
    return joined


def _reason(form: Format, name: str) -> str | None:
    for pattern, reason in form.left:
        if re.match(pattern, name):
            return reason
    return None


def _check_duplicates(
    weights: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    left: Mapping[str, str],
) -> None:
    """Refuse copies that differ from what was carried over in their place."""
    for name, reason in left.items():
        if reason == DUPLICATE:
            twin = weights.get(name)
            if twin is None or not torch.equal(twin, source[name]):
                raise ValueError(
                    f'{name} should stand in the file twice with the same '
                    'values, but does not: which of them was trained cannot '
                    'be told. Leave one behind with --drop.'
                )


def _shape_queue(
    weights: dict[str, Tensor], name: str, place: int
) -> list[str]:
    """Give a queue our shape, C×K, and a pointer."""
    if f'{name}.keys' not in weights:
        if weights.pop(f'{name}.ptr', None) is not None:
            return ['A queue pointer without a queue was left behind.']
        return []
    notes = []
    keys = weights[f'{name}.keys']
    start = weights.get(f'{name}.ptr', torch.zeros(1, dtype=torch.long))
    if keys.dim() == 3 and len(keys) > place:
        if len(keys) > 1:
            notes.append(
                f'The file has {len(keys)} queues; the keys of number '
                f'{place + 1} were carried over.'
            )
        if len(start) == len(keys):
            start = start[place]
        keys = keys[place]
    width = _key_width(weights)
    if keys.dim() != 2 or (width is not None and width not in keys.shape):
        raise ValueError(
            f'The queue has the shape {tuple(keys.shape)}; expected C×K with '
            f'C={width}, the width of the projection.'
        )
    if width is not None and keys.shape[0] != width:
        keys = keys.T
    weights[f'{name}.keys'] = keys.contiguous()
    weights[f'{name}.ptr'] = start.reshape(1).long()
    return notes


def _key_width(weights: Mapping[str, Tensor]) -> int | None:
    """Width of a key: the rows of the last linear layer of the projection."""
    layers = [
        value
        for name, value in weights.items()
        if name.startswith('neck.') and value.dim() == 2
    ]
    return len(layers[-1]) if layers else None


def _summary(names: Iterable[str]) -> str:
    """The first two levels of the keys, with their counts."""
    counts = Counter('.'.join(name.split('.')[:2]) for name in names)
    shown = [f'{top} ({count})' for top, count in counts.items()]
    return few(shown, 12) or 'no keys at all'
