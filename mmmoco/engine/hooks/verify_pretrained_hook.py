from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader, Runner
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
    file, tensor by tensor; a file behind a URL as torch's cache has it.
    Modules with the same file and prefix share its keys: ``layer4`` of a C4
    detector is in its RoI head. A resumed run is not compared: its weights
    have moved on.

    Args:
        allow_missing: Shell patterns of keys that the file may lack. The
            batches that BatchNorm counted are never asked for: old files
            lack them, and mmengine starts them at 0.
        allow_unexpected: Patterns of keys below the prefix that the module
            may lack: the classifier in the files of torchvision.
        allow_reshaped: Patterns of keys that the module may have resized
            while loading, such as the positions of a ViT.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self,
        allow_missing: Sequence[str] = (),
        allow_unexpected: Sequence[str] = ('fc.*',),
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
        # Another library's script may run this: what it loads is plain data.
        checkpoint_io.install()
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
        if runner._has_loaded:
            return
        found = list(pretrained_modules(bare_model(runner)))
        for name, module, init in found:
            others = [
                other
                for _, other, theirs in found
                if other is not module and _source(theirs) == _source(init)
            ]
            self.verify(name, module, init, others)

    def verify(
        self,
        name: str,
        module: nn.Module,
        init: Any,
        others: Sequence[nn.Module] = (),
    ) -> int:
        """Compare one module with its file.

        Args:
            name: Place of the module in the model.
            module: What was loaded.
            init: Its ``init_cfg``.
            others: Modules that take the rest of the same file.

        Returns:
            The number of tensors that were compared.

        Raises:
            CheckpointError: If they differ; lists all that does.
        """
        path, prefix = _source(init)
        theirs = {
            key.removeprefix(prefix): value
            for key, value in _weights(path).items()
            if key.startswith(prefix)
        }
        own: dict[str, Tensor] = module.state_dict()
        elsewhere = {key for other in others for key in other.state_dict()}
        shared = [key for key in own if key in theirs]
        reshaped = [k for k in shared if own[k].shape != theirs[k].shape]
        missing = [
            k
            for k in own
            if k not in theirs and not k.endswith('num_batches_tracked')
        ]
        groups = {
            'missing in the file': _outside(missing, self.allow_missing),
            'unknown to the model': _outside(
                [k for k in theirs if k not in own and k not in elsewhere],
                self.allow_unexpected,
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
        count = len(shared) - len(reshaped)
        new = f'; new: {", ".join(missing)}' if missing else ''
        resized = f'; resized: {", ".join(reshaped)}' if reshaped else ''
        print_log(
            f'{name}: all {count} tensors equal those of {path}{resized}'
            f'{new}.',
            logger='current',
        )
        return count


def _source(init: Any) -> tuple[str, str]:
    """Return file and prefix; the prefix with its dot, or empty."""
    prefix = init.get('prefix') or ''
    return init['checkpoint'], f'{prefix.rstrip(".")}.' if prefix else ''


def _weights(path: str) -> dict[str, Tensor]:
    if '://' not in path:
        return checkpoint_io.state_dict_of(checkpoint_io.read(path))
    # The model has just been loaded from there: it is in torch's cache.
    checkpoint_io.install()
    loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    return checkpoint_io.state_dict_of(loaded)


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
