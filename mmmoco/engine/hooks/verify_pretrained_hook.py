from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmoco.engine import checkpoint_io
from mmmoco.engine.unwrap import bare_model
from mmmoco.registry import HOOKS


@HOOKS.register_module()
class VerifyPretrainedHook(Hook):
    """Check before the first iteration that weights were really loaded.

    OpenMMLab only warns when a ``Pretrained`` checkpoint does not fit, and
    trains on from random weights. This hook compares every module that has
    ``init_cfg=dict(type='Pretrained', checkpoint=…, prefix=…)`` with its
    file, tensor by tensor. A resumed run is not compared: its weights have
    moved on.

    Args:
        allow_missing: Shell patterns of keys that the file may lack.
        allow_unexpected: Patterns of keys below the prefix that the module
            may lack.
        allow_reshaped: Patterns of keys that the module may have resized
            while loading, such as the positions of a ViT.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self,
        allow_missing: Sequence[str] = (),
        allow_unexpected: Sequence[str] = (),
        allow_reshaped: Sequence[str] = ('*pos_embed',),
    ) -> None:
        self.allow_missing = tuple(allow_missing)
        self.allow_unexpected = tuple(allow_unexpected)
        self.allow_reshaped = tuple(allow_reshaped)

    def before_run(self, runner: Runner) -> None:
        """Refuse a config that names no file, before anything is loaded.

        Raises:
            ValueError: If there is no ``Pretrained`` module or no file.
        """
        found = list(pretrained_modules(bare_model(runner)))
        if not found:
            raise ValueError(
                'VerifyPretrainedHook found no module with '
                "init_cfg=dict(type='Pretrained', checkpoint=…): give the "
                'backbone one, or remove the hook.'
            )
        for name, _, init in found:
            if not init.get('checkpoint'):
                raise ValueError(
                    f'model.{name}.init_cfg.checkpoint is empty: name the '
                    'pre-trained file, --cfg-options '
                    f'model.{name}.init_cfg.checkpoint=epoch_200.pth'
                )

    def before_train(self, runner: Runner) -> None:
        """Compare every pre-trained module with its file.

        Raises:
            CheckpointError: If they differ; lists all that does.
        """
        if runner._resume or runner._load_from:
            return
        for name, module, init in pretrained_modules(bare_model(runner)):
            count = self.verify(name, module, init)
            print_log(
                f'{name}: all {count} tensors equal those of '
                f'{init["checkpoint"]}.',
                logger='current',
            )

    def verify(self, name: str, module: nn.Module, init: Any) -> int:
        """Compare one module with its file; return the tensors compared."""
        path, prefix = init['checkpoint'], init.get('prefix', '')
        if '://' in path:
            return 0
        loaded = checkpoint_io.state_dict_of(checkpoint_io.read(path))
        prefix = f'{prefix.rstrip(".")}.' if prefix else ''
        theirs = {
            key.removeprefix(prefix): value
            for key, value in loaded.items()
            if key.startswith(prefix)
        }
        own: dict[str, Tensor] = module.state_dict()
        shared = [key for key in own if key in theirs]
        reshaped = [k for k in shared if own[k].shape != theirs[k].shape]
        groups = {
            'missing in the file': _outside(
                [k for k in own if k not in theirs], self.allow_missing
            ),
            'unknown to the model': _outside(
                [k for k in theirs if k not in own], self.allow_unexpected
            ),
            'of another shape': _outside(reshaped, self.allow_reshaped),
            'of other values': [
                key
                for key in shared
                if key not in reshaped
                and not torch.equal(
                    own[key].cpu(), theirs[key].to(own[key].dtype)
                )
            ],
        }
        lines = [
            f'  {len(keys)} {title}: {", ".join(keys)}'
            for title, keys in groups.items()
            if keys
        ]
        if lines:
            raise checkpoint_io.CheckpointError(
                f'model.{name} does not hold the weights of {path} (prefix '
                f'{prefix!r}):\n' + '\n'.join(lines) + '\nGive the backbone '
                'of the pre-training config and its prefix, or name keys '
                'that may differ in VerifyPretrainedHook.'
            )
        return len(shared) - len(reshaped)


def pretrained_modules(
    model: nn.Module,
) -> Iterator[tuple[str, nn.Module, Any]]:
    """Yield name, module and config of everything that loads a file."""
    for name, module in model.named_modules():
        configs = getattr(module, 'init_cfg', None) or []
        for init in configs if isinstance(configs, list) else [configs]:
            if init.get('type') == 'Pretrained':
                yield name, module, init


def _outside(keys: list[str], patterns: tuple[str, ...]) -> list[str]:
    return [k for k in keys if not any(fnmatchcase(k, p) for p in patterns)]
