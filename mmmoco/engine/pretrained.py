"""Modules that start from a file: ``init_cfg=dict(type='Pretrained', …)``.

OpenMMLab only warns when such a file does not fit, and trains on from random
weights.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mmengine.model import PretrainedInit
from torch import nn

from mmmoco.messages import log_warning
from mmmoco.private_names import unsaid_initialization

from .architecture import hold
from .checkpoint_io import guarded
from .checkpoint_io.fitting import MEND, WHOLE, require, watch


def pretrained_modules(
    model: nn.Module,
) -> Iterator[tuple[str, nn.Module, Any]]:
    """Yield name, module and config of everything that loads a file."""
    for name, module in model.named_modules():
        configs = getattr(module, 'init_cfg', None) or []
        for init in configs if isinstance(configs, list) else [configs]:
            if init.get('type') in ('Pretrained', PretrainedInit):
                yield name, module, init


@contextmanager
def verified(
    model: nn.Module,
    strict: bool,
    partial: bool = False,
    compared: bool = True,
) -> Iterator[None]:
    """See that each pretrained part gets its weights in the meantime.

    Args:
        model: Is initialised within this context.
        strict: Every tensor of a part must be in its file; else one is
            enough: networks of other libraries add layers that no file has.
        partial: One is enough in any case.
        compared: See that it is the network of the file, too.

    Raises:
        CheckpointError: If the file of a part does not fit it.
    """
    parts = list(pretrained_modules(model))
    with guarded, ExitStack() as stack:
        seen = [stack.enter_context(watch(module)) for _, module, _ in parts]
        yield
    for (name, module, init), found in zip(parts, seen, strict=True):
        place = f'model.{name}' if name else 'model'
        path = init.get('checkpoint')
        if not found:
            log_warning(
                f'{place}.init_cfg names {path}, but nothing was loaded from '
                'it.'
            )
            continue
        fit = found[-1]
        require(
            fit,
            place,
            f'{path} (prefix={init.get("prefix")!r})',
            needed=WHOLE if strict else (),
            partial=partial,
            mend=MEND,
            allow_extra=('*',),
        )
        if fit.stays() or (strict and fit.extra):
            log_warning(f'{place} from {path}: {fit.report()}.')
        if compared:
            hold(path, module, place, partial)


def initialize(model: nn.Module, strict: bool = True) -> None:
    """Initialise a model, and see that its files fit.

    Args:
        model: With ``init_weights()``.
        strict: As for :func:`verified`.

    Raises:
        CheckpointError: If the file of a part does not fit it.
    """
    # Its lines about every parameter belong in the log of a run.
    with verified(model, strict), unsaid_initialization():
        model.init_weights()  # type: ignore[operator]


def source_of(init: Any) -> tuple[str, str]:
    """Return file and prefix of an ``init_cfg``."""
    prefix = init.get('prefix')
    return init['checkpoint'], f'{prefix.rstrip(".")}.' if prefix else ''
