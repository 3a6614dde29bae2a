"""What a downstream model starts from: ``mmmoco train --init``.

One switch for the three initialisations that papers compare: weights of a
file, supervised ones, none. It sets every ``Pretrained`` part of a model, so
that the RoI head of a C4 detector gets ``layer4`` from the same file as the
backbone gets the rest.
"""

from typing import Any

from mmengine.config import Config, ConfigDict

from mmmoco.apis import cli
from mmmoco.engine import checkpoint_io
from mmmoco.registry import bare_type

from .option_values import places

#: Where training checkpoints hold the query encoder.
BACKBONE = 'backbone.'
#: What a student learns from starts from a file of its own.
TEACHER = 'model.teacher.'

#: Of which torchvision has supervised weights for ImageNet: whole, or the
#: last stage alone in the RoI head of a C4 detector.
_RESNETS = ('ResNet', 'ResLayer', 'ResLayerExtraNorm')
_DEPTHS = (18, 34, 50, 101, 152)


def initialize(cfg: Config, source: str) -> None:
    """Let every ``Pretrained`` part of a model start from ``source``.

    ``cfg.initialization`` then says what was chosen; the run logs it.

    Args:
        cfg: Config to change.
        source: A checkpoint, from training or exported; ``'supervised'`` for
            the weights of torchvision; ``'random'`` for none.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        CheckpointError: If it cannot be read as plain weights.
        ValueError: If nothing in the model is ``Pretrained``, or if there are
            no supervised weights for it.
    """
    parts = {
        place: node
        for place, node in places({'model': cfg.get('model')})
        if isinstance(node, dict)
        and _pretrained(node)
        and not f'{place}.'.startswith(TEACHER)
    }
    if not parts:
        raise ValueError(
            f'--init {source}: the model of this config has no '
            "init_cfg=dict(type='Pretrained', checkpoint=…), so nothing "
            'would be initialised; give its backbone one.'
        )
    if source == 'random':
        _forget(cfg, parts)
        return
    if source == 'supervised':
        names = {_supervised(place, part) for place, part in parts.items()}
        if len(names) > 1:
            raise ValueError(
                '--init supervised: the parts of this model are of different '
                f'depths ({", ".join(sorted(names))}).'
            )
        checkpoint, prefix = names.pop(), None
    else:
        cli.require_file(source)
        checkpoint, prefix = source, _prefix(source)
    for part in parts.values():
        for init in _pretrained(part):
            init.checkpoint = checkpoint
            init.pop('prefix', None)
            if prefix:
                init.prefix = prefix
    keys = f'its keys {prefix}*' if prefix else 'all its keys, no prefix'
    cfg.initialization = f'{", ".join(parts)}: {checkpoint} ({keys})'


def _pretrained(part: Any) -> list[ConfigDict]:
    inits = part.get('init_cfg')
    inits = inits if isinstance(inits, list | tuple) else [inits]
    return [x for x in inits if x and x.get('type') == 'Pretrained']


def _forget(cfg: Config, parts: dict[str, ConfigDict]) -> None:
    """Leave every part as its own code initialises it; verify nothing."""
    for part in parts.values():
        inits = part.init_cfg
        rest = inits if isinstance(inits, list | tuple) else []
        part.init_cfg = [
            x for x in rest if x.get('type') != 'Pretrained'
        ] or None
    cfg.custom_hooks = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if bare_type(hook) != 'VerifyPretrainedHook'
    ]
    cfg.initialization = (
        f'{", ".join(parts)}: random, nothing is loaded and so nothing '
        'verified'
    )


def _supervised(place: str, part: ConfigDict) -> str:
    """Return mmengine's name for the weights of torchvision."""
    kind = bare_type(part)
    depth = part.get('depth')
    if kind not in _RESNETS or depth not in _DEPTHS:
        size = f' of depth {depth}' if depth else ''
        raise ValueError(
            f'--init supervised stands for the ResNets of torchvision, but '
            f'{place} is a {kind}{size}: name a file with supervised weights '
            'instead, --init FILE.'
        )
    return f'torchvision://resnet{depth}'


def _prefix(checkpoint: str) -> str:
    """Return what stands before the backbone's keys: they tell."""
    weights = checkpoint_io.read_weights(checkpoint)
    return BACKBONE if any(k.startswith(BACKBONE) for k in weights) else ''
