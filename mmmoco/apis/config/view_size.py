"""``view_size=96``: one setting for crops, network and evaluation."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config

from mmmoco.engine.evaluation.preprocessing import CROPS, RESIZES
from mmmoco.registry import bare_type, dicts_in, value_at

KEY = 'view_size'

Size = tuple[int, int]


def resize_views(cfg: Config, size: Any) -> None:
    """Cut the views of a pre-training config to another size.

    The largest crops get it, and smaller ones (multi-crop) keep their share
    of it; a network that was made for the old size (``img_size``) is made
    for the new one, and evaluations that show images of the old size follow.

    Args:
        cfg: Config to change.
        size: Side in pixels, or height and width.

    Raises:
        ValueError: If it is no size, if the network's patches do not fill
            it, or if the config has no crops.
    """
    new = _pair(size)
    if new is None:
        raise ValueError(
            f'{KEY}={size!r}: give a whole number of pixels from 1 on, or '
            'two (height, width).'
        )
    model = cfg.get('model') or {}
    loader = cfg.get('train_dataloader') or {}
    steps = [loader.get('dataset'), model.get('data_preprocessor')]
    crops = list(_sized(steps, CROPS))
    if not crops:
        raise ValueError(
            f'{KEY}={size!r}: the config has no crop of a known kind '
            f'({", ".join(sorted(CROPS))}) in its training pipeline.'
        )
    old = max(now for _, _, now in crops)
    patch = value_at(model, 'backbone.patch_size')
    patch = patch if isinstance(patch, int) else 1
    if any(side % patch for side in new):
        good = [max(1, round(side / patch)) * patch for side in new]
        raise ValueError(
            f'{KEY}={size!r}: the patches of model.backbone.patch_size='
            f'{patch} do not fill it; take {_said(good[0], good[1])}.'
        )
    # The same dict may stand in several views.
    for step, name, now in {id(c[0]): c for c in crops}.values():
        step[name] = _said(
            *(
                max(1, round(n * a / b / patch)) * patch
                for n, a, b in zip(now, new, old, strict=True)
            )
        )
    for part in dicts_in(model):
        if _pair(part.get('img_size')) == old:
            part['img_size'] = _said(*new)
    places = ('knn', 'custom_hooks', 'val_dataloader', 'test_dataloader')
    for part in dicts_in([cfg.get(place) for place in places]):
        if isinstance(part.get('pipeline'), list | tuple):
            _resize_evaluation(part['pipeline'], old, new)


def _resize_evaluation(pipeline: Any, old: Size, new: Size) -> None:
    """Let a pipeline show the new size, if it shows the old one."""
    steps = list(_sized(pipeline, {*CROPS, *RESIZES}))
    if not steps or steps[-1][2] != old:
        return
    for step, name, now in {id(s[0]): s for s in steps}.values():
        pairs = zip(now, new, old, strict=True)
        sides = [max(1, round(n * a / b)) for n, a, b in pairs]
        if bare_type(step).rpartition('/')[2] in CROPS:
            step[name] = _said(sides[0], sides[1])
        elif isinstance(step[name], int):
            step[name] = max(sides)  # The shorter edge; a crop follows.
        else:
            step[name] = tuple(sides)


def _sized(
    node: Any, kinds: Iterable[str]
) -> Iterable[tuple[dict[str, Any], str, Size]]:
    """Yield the steps of some kinds, with the name and value of the size."""
    for step in dicts_in(node):
        if bare_type(step).rpartition('/')[2] in kinds:
            for name in ('size', 'crop_size', 'scale'):
                pair = _pair(step.get(name))
                if pair is not None:
                    yield step, name, pair
                    break


def _pair(size: Any) -> Size | None:
    """Return height and width, None if it is no size."""
    both = [size, size] if isinstance(size, int) else size
    if isinstance(both, Mapping) or not isinstance(both, list | tuple):
        return None
    whole = all(type(side) is int and side > 0 for side in both)
    return (both[0], both[1]) if whole and len(both) == 2 else None


def _said(height: int, width: int) -> int | Size:
    return height if height == width else (height, width)
