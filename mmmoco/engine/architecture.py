"""What no shape of a tensor tells of a network, told and compared.

Two networks of equal shapes compute different functions if one has 12 heads
and the other 6, or its strides elsewhere. A module tells; what it tells is
saved with its weights, and held against the module that takes them.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from mmengine.config import Config
from torch import Tensor, nn

from mmmoco.convert.anatomy import below, describe_backbone
from mmmoco.convert.importing import import_weights
from mmmoco.messages import log_info, log_warning, shortened
from mmmoco.private_names import Convolution, Normalisation
from mmmoco.registry import value_at

from .checkpoint_io import CheckpointError, load, read_meta, state_dict_of
from .without_memory import build_without_memory

#: What a difference is called, and whether another function is computed. An
#: epsilon, or how positions are resized, moves values by little: training
#: makes up for it.
TRAITS = {
    'heads': ('heads of attention', True),
    'tokens': ('tokens before the patches', True),
    'activation': ('activation', True),
    'norm_eps': ('epsilon of the norms', False),
    'positions': ('interpolation of the positions', False),
}
#: Where convolutions step, and how far apart they look.
STEPS = 'steps'
ONES = [[1, 1], [1, 1]]
#: ResNets of mmdet's zoo: torchvision's names, and strides elsewhere.
_CAFFE = re.compile('caffe|msra')
_NORMS = (Normalisation, nn.LayerNorm, nn.GroupNorm)
#: By the names of their classes: several libraries have them.
_ACTIVATIONS = {
    **{name: name for name in ('ReLU', 'GELU', 'QuickGELU', 'LeakyReLU')},
    **dict.fromkeys(('SiLU', 'Swish'), 'SiLU'),
    **dict.fromkeys(('Hardswish', 'HSwish'), 'Hardswish'),
}


def architecture_of(network: nn.Module) -> dict[str, Any]:
    """Return what no shape tells of a network, as plain values.

    Args:
        network: A backbone, or a part of one.
    """
    told: dict[str, list[Any]] = {}
    told |= {'heads': [], 'activation': [], 'norm_eps': []}
    steps: dict[str, list[list[int]]] = {}
    for name, module in network.named_modules():
        kind = _ACTIVATIONS.get(type(module).__name__)
        if kind is not None:
            told['activation'].append(kind)
        elif isinstance(module, _NORMS):
            told['norm_eps'].append(module.eps)
        elif isinstance(module, Convolution):
            pair = [list(module.stride), list(module.dilation)]
            if max(map(max, pair)) > 1:
                steps[name] = pair
        elif isinstance(getattr(module, 'num_heads', None), int):
            told['heads'].append(module.num_heads)
    found: dict[str, Any] = {
        name: [*dict.fromkeys(values)] for name, values in told.items()
    }
    # mmpretrain's, then timm's.
    for attribute in ('num_extra_tokens', 'num_prefix_tokens'):
        if isinstance(getattr(network, attribute, None), int):
            found['tokens'] = [getattr(network, attribute)]
    if isinstance(getattr(network, 'interpolate_mode', None), str):
        found['positions'] = [network.interpolate_mode]
    found = {name: values for name, values in found.items() if values}
    return {**found, STEPS: steps}


def architecture_in(
    path: str, content: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return that of the network whose checkpoint this is.

    What a file of ours says; else that of the networks which the authors of
    a known layout published.

    Args:
        path: File or URL; not trusted.
        content: What was read of it; else it is read here.

    Returns:
        Empty if it is not known.

    Raises:
        CheckpointError: It cannot be read.
    """
    known = content
    if content is None and '://' not in path:
        known = {'meta': read_meta(path)}
    told = value_at(known, 'meta.architecture')
    if isinstance(told, str):  # As .safetensors has it.
        with suppress(ValueError, RecursionError):
            told = json.loads(told)
    if isinstance(told, Mapping):
        return dict(told)
    with suppress(ValueError):
        imported = import_weights(state_dict_of(content or load(path), path))
        if imported.format.published and not _CAFFE.search(path):
            return architecture_of(_published(imported.weights))
    return {}


def _published(weights: Mapping[str, Tensor]) -> nn.Module:
    """Build the network that weights by our names are of, without memory."""
    network = describe_backbone(below(weights, 'backbone.'))
    return build_without_memory(Config(dict(model=network)))


class Compared(NamedTuple):
    """How a network differs from that of a file.

    Attributes:
        faults: Differences by which it computes something else.
        remarks: Those that matter little.
        unknown: What the file does not tell.
    """

    faults: list[str]
    remarks: list[str]
    unknown: list[str]


def compare(
    told: Mapping[str, Any], network: nn.Module, names: tuple[str, str]
) -> Compared:
    """Hold a network against what its file tells.

    Args:
        told: From :func:`architecture_in`.
        network: That takes the weights.
        names: Of file and network, for the messages.
    """
    own, found = architecture_of(network), Compared([], [], [])
    for trait, (title, matters) in TRAITS.items():
        mine, theirs = own.get(trait), told.get(trait)
        if mine is None:
            continue
        if not isinstance(theirs, list):
            found.unknown.append(title)
        # A part of what the file holds, such as a RoI head, has less.
        elif not all(value in theirs for value in mine):
            line = _both(title, theirs, mine, names)
            (found.faults if matters else found.remarks).append(line)
    steps = told.get(STEPS)
    if not isinstance(steps, Mapping):
        if own[STEPS]:
            found.unknown.append('strides')
        return found
    places: tuple[list[Any], list[Any]] = ([], [])
    for name, module in network.named_modules():
        pair = steps.get(name, ONES), own[STEPS].get(name, ONES)
        if isinstance(module, Convolution) and pair[0] != pair[1]:
            places[_is_dilated(network, name)].append((name, *pair))
    for some, lines in zip(places, (found.faults, found.remarks), strict=True):
        for name, theirs, mine in some[:1]:
            more = f' (and {len(some) - 1} more)' if some[1:] else ''
            title = f'stride and dilation of {name}{more}'
            lines.append(_both(title, theirs, mine, names))
    return found


def hold(
    path: str,
    network: nn.Module,
    name: str,
    partial: bool = False,
    content: Mapping[str, Any] | None = None,
) -> None:
    """Refuse weights of a network that computes another function.

    Args:
        path: Of their file.
        network: That took them, or a model around it.
        name: Of the network, for the messages.
        partial: Only say it.
        content: As for :func:`architecture_in`.

    Raises:
        CheckpointError: In one line, naming both values.
    """
    network = getattr(network, 'backbone', network)
    found = compare(architecture_in(path, content), network, (path, name))
    if found.faults:
        text = f'{"; ".join(found.faults)}: all shapes are equal, but it '
        text += 'computes something else.'
        if not partial:
            raise CheckpointError(f'{text} Give the model what the file has.')
        log_warning(text)
    for line in found.remarks:
        log_warning(line)
    if found.unknown:
        log_info(
            f'{path} does not tell its {", ".join(found.unknown)}: not '
            f'compared with {name}.'
        )


def _both(title: str, theirs: Any, mine: Any, names: tuple[str, str]) -> str:
    a, b = (shortened(_short(value), 60) for value in (theirs, mine))
    return f'{title}: {a} in {names[0]}, {b} in {names[1]}'


def _short(value: Any) -> Any:
    """Leave the brackets out around what is only one value."""
    while isinstance(value, list) and len({*map(repr, value)}) == 1:
        value = value[0]
    return [_short(v) for v in value] if isinstance(value, list) else value


def _is_dilated(network: nn.Module, name: str) -> bool:
    """Whether a stage looks as far without its stride, as segmentors want."""
    stage, dot, _ = name.partition('.')
    module: Any = network.get_submodule(name)
    if not dot or max(module.stride) > 1:
        return False
    return any(
        max(module.dilation) > 1
        for module in network.get_submodule(stage).modules()
        if isinstance(module, Convolution)
    )
