import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmoco.engine import checkpoint_io
from mmmoco.engine.architecture import hold
from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.checkpoint_io.fitting import named
from mmmoco.engine.pretrained import pretrained_modules, source_of
from mmmoco.engine.run_hook import RunHook
from mmmoco.engine.screen import ABOUT
from mmmoco.private_names import has_loaded, only_tests
from mmmoco.registry import HOOKS


@HOOKS.register_module()
class VerifyPretrainedHook(RunHook):
    """Check before the first iteration that weights were really loaded.

    Our runner sees that names and shapes of a ``Pretrained`` file fit; this
    hook holds it to every tensor and its values. It compares every module
    that has ``init_cfg=dict(type='Pretrained', checkpoint=…, prefix=…)`` with
    its file; a file behind a URL as torch's cache has it.
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
    verifies_weights = True

    def __init__(
        self,
        allow_missing: Sequence[str] = (),
        allow_unexpected: Sequence[str] = ('fc.*',),
        allow_reshaped: Sequence[str] = ('*pos_embed',),
    ) -> None:
        self.allow_missing = tuple(allow_missing)
        self.allow_unexpected = tuple(allow_unexpected)
        self.allow_reshaped = tuple(allow_reshaped)
        self._in_run = ExitStack()
        # Other libraries' runners call nothing when a run fails.
        weakref.finalize(self, self._in_run.close)

    def before_run(self, runner: Runner) -> None:
        """Refuse a config that names no file, before anything is loaded.

        Raises:
            ValueError: If there is no ``Pretrained`` module or no file.
        """
        if only_tests(runner):
            return  # A test has the weights of its own checkpoint.
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
        # Another library's script may run this: what it loads is plain data.
        self.release()
        self._in_run.enter_context(checkpoint_io.guarded)

    def after_run(self, runner: Runner) -> None:
        """Let mmengine read checkpoints in its own way again."""
        self.release()

    def release(self) -> None:
        """Do so; our runner calls it whatever ends a run."""
        self._in_run.close()

    def before_train(self, runner: Runner) -> None:
        """Compare every pre-trained module with its file.

        Raises:
            CheckpointError: If they differ; says what does.
        """
        if has_loaded(runner) or runner.cfg.get('allow_partial'):
            return
        found = list(pretrained_modules(bare_model(runner)))
        for name, module, init in found:
            others = [
                other
                for _, other, theirs in found
                if other is not module and source_of(theirs) == source_of(init)
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
            CheckpointError: If they differ; says what does.
        """
        path, prefix = source_of(init)
        theirs = checkpoint_io.read_weights(path, prefix)
        own: dict[str, Tensor] = module.state_dict()
        elsewhere = {key for other in others for key in other.state_dict()}
        fit = checkpoint_io.Fit.of(own, theirs)
        fit.extra = [key for key in fit.extra if key not in elsewhere]
        problems = fit.other_network() or fit.problems(
            allow_missing=self.allow_missing,
            allow_extra=self.allow_unexpected,
            allow_reshaped=self.allow_reshaped,
        )
        shared = [
            key for key in own if key in theirs and key not in fit.reshaped
        ]
        moved = [
            key
            for key in shared
            if not torch.equal(own[key].cpu(), theirs[key].to(own[key].dtype))
        ]
        problems += named({'of other values': moved})
        if problems:
            raise checkpoint_io.CheckpointError(
                f'model.{name} does not hold the weights of {path} '
                f'(prefix={prefix!r}): {"; ".join([fit.counts(), *problems])}'
                '. Give the backbone of the pre-training config and its '
                'prefix, or name keys that may differ in '
                'VerifyPretrainedHook.'
            )
        hold(path, module, f'model.{name}')
        new = [key for key in fit.stays() if key not in fit.reshaped]
        more = f'; resized: {", ".join(fit.reshaped)}' if fit.reshaped else ''
        more += f'; new: {", ".join(new)}' if new else ''
        MMLogger.get_current_instance().info(
            f'{name}: all {len(shared)} tensors equal those of {path}{more}.',
            extra=ABOUT,
        )
        return len(shared)
