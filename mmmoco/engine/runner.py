import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from mmmoco.engine import checkpoint_io, class_names
from mmmoco.engine.checkpoint_io.fitting import MEND, WHOLE
from mmmoco.engine.disk import survive, survive_in, survive_logging
from mmmoco.engine.endings import building, note_training
from mmmoco.engine.pretrained import verified
from mmmoco.engine.reshard import (
    describe_processes,
    fit_sampler,
    reshard,
    shown_rates,
)
from mmmoco.engine.resume_check import check_optimizers, check_state, fit_state
from mmmoco.private_names import (
    accumulation_of,
    backends_of,
    templates_escaped,
)
from mmmoco.progress import Progress
from mmmoco.registry import OPTIMIZERS, RUNNERS, bare_type, value_at

from .architecture import architecture_of, hold
from .bare_model import bare_model, two_phase_model
from .batch_checks import check_loader
from .changes import changes, describe_run, settings_of
from .class_checks import check_classes, check_labels, emptied_explained
from .class_folders import hidden_skipped
from .evaluation.preprocessing import compare_start, tell_teachers
from .run_hook import RunHook
from .run_lines import first_lines, last_lines, setting_lines
from .scaled_momentum import go_on, scale_momentum
from .schedule import Schedule
from .screen import ABOUT, SETTING, Screen
from .work_dir import Outdated, claimed

#: mmengine's loops, and ours in their place.
_LOOPS = {
    'EpochBasedTrainLoop': 'mmmoco.ContrastEpochLoop',
    'IterBasedTrainLoop': 'mmmoco.ContrastIterLoop',
}

#: Iterations whose mean loss stands in the line of the progress.
LAST = 10


@RUNNERS.register_module()
class ContrastRunner(Runner):
    """mmengine's Runner, with the learning rate scaled as the papers do."""

    _resuming = False
    _for_training = False
    _outdated = Outdated('')
    #: Whether a step was done: what fails before is a run that does not fit.
    _stepped = False
    _resumed_meta: dict[str, Any] | None = None
    _screen: Screen
    _progress: Progress | None = None
    _schedule: Schedule | None = None
    _configured: dict[str, set[Any]] = {}  # noqa: RUF012  never changed
    _resume: bool
    _load_from: str | None

    def resume(self, filename: str, **kwargs: Any) -> None:
        """Continue a run from a checkpoint, also with other processes.

        Raises:
            CheckpointError: If the file holds weights only.
        """
        self._resuming = True
        # On the CPU: the optimizer moves what it needs to its parameters, and
        # would wait in every step for a number of Adam's that lies on a GPU.
        kwargs.setdefault('map_location', 'cpu')
        super().resume(filename, **kwargs)
        self._resuming = False
        # The sampler was built before the seed of the run was known.
        loader = self.train_dataloader
        for holder in (loader, loader.batch_sampler):
            if hasattr(getattr(holder, 'sampler', None), 'seed'):
                holder.sampler.seed = self.seed
        meta = self._resumed_meta or {}
        go_on(self, meta, reshard(self, meta.get('processes')))
        if self._schedule is not None:
            self._schedule.go_on(self)
        changed = changes(self, meta, self._configured, self._described)
        if changed:
            said = ' '.join(changed)
            self.logger.warning(f'Not as when {filename} was saved. {said}')
        loop = self.train_loop
        if loop.iter >= loop.max_iters:
            self.logger.warning(
                f'Nothing is left to train: {filename} is of iteration '
                f'{loop.iter}, and the run ends at {loop.max_iters}. To go '
                'on, raise train_cfg.max_epochs, or --max-iters.'
            )

    def load_or_resume(self) -> None:
        """Load or resume, then say which schedule runs."""
        if self._resume and self._load_from is None:
            self._load_from = checkpoint_io.find_latest_for_all(
                self.work_dir, self._out_dir()
            )
            self._resume = self._load_from is not None
        super().load_or_resume()
        if self._schedule is not None:
            resumed = self._resumed_meta is not None
            self._schedule.announce(self, resumed)

    @cached_property
    def _described(self) -> dict[str, Any]:
        """What a later resume compares; all file names are read for it."""
        return describe_run(self)

    @checkpoint_io.guarded
    @hidden_skipped
    def train(self) -> Any:
        """Train in a work dir that no other run has.

        Raises:
            WorkDirError: If the work dir belongs to another run.
        """
        claim = claimed(
            self.work_dir,
            self._out_dir(),
            goes_on=bool(self._resume),
            # Not for whoever reads the config that is written below.
            overwrite=self.cfg.pop('overwrite', False),
            start=self._load_from,
        )
        with building(), claim as self._outdated:
            if not self._outdated.files:
                self._write_config()
            return self._train()

    def _write_config(self) -> None:
        name = os.path.basename(self.cfg.filename or f'{self.timestamp}.py')
        text = templates_escaped(self.cfg.dump())
        with survive(f'The config is not written to {self.work_dir}'):
            if self.rank == 0:
                checkpoint_io.write_text(Path(self.work_dir, name), text)

    # Models that read a teacher do so while they are built.
    __init__ = checkpoint_io.guarded(hidden_skipped(Runner.__init__))
    val = checkpoint_io.guarded(hidden_skipped(Runner.val))
    test = checkpoint_io.guarded(hidden_skipped(Runner.test))

    def _train(self) -> Any:
        """Train; whatever ends it, hooks give back what they hold."""
        self._for_training = True
        try:
            if self.rank == 0 and not self._resume:
                for line in compare_start(self.cfg):
                    self.logger.warning(line)
            return super().train()
        except Exception as error:
            if self._stepped:
                note_training(error, self.iter + 1)
                for hook in self._run_hooks():
                    hook.settle(self, error)
            raise
        finally:
            self._stepped = False
            if self._progress is not None:
                self._progress.close()
            for hook in self._run_hooks():
                hook.release()

    def _run_hooks(self) -> list[RunHook]:
        return [hook for hook in self.hooks if isinstance(hook, RunHook)]

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks; from the first step on, faults are ours."""
        if fn_name == 'before_train_iter' and self._outdated.files:
            # All has been checked; until now the work dir was the other's.
            self._outdated.remove()
            self._write_config()
        if fn_name == 'before_train_iter' and two_phase_model(self) is None:
            check_labels(kwargs.get('data_batch'), bare_model(self))
        if fn_name == 'after_train_iter':
            self._stepped = True
            for hook in self._run_hooks():
                hook.step_done()
        if fn_name == 'before_train':
            self._progress = Progress('Training', self.max_iters, self.iter)
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_train' and self._progress is not None:
            self._progress.start = time.monotonic()
            self._screen.start(
                self.logger,
                first_lines(self),
                last_lines(self),
                setting_lines(self),
            )
        elif fn_name in ('before_val', 'before_test'):
            self._screen.start(self.logger)
        elif fn_name == 'after_train_iter' and self._progress is not None:
            progress = self._progress
            progress.heard(self._screen.spoken)
            progress.advance(note=self._loss_now(progress))
        elif fn_name == 'after_train' and self._progress is not None:
            self._progress.close()

    def _loss_now(self, progress: Progress) -> str:
        if not progress.due():
            return ''  # The hub would be asked for nothing.
        losses = self.message_hub.log_scalars.get('train/loss')
        return f'loss {losses.mean(LAST):.4g}' if losses else ''

    def build_logger(self, *args: Any, **kwargs: Any) -> Any:
        """Build it; a full disk then costs lines, not the run."""
        logger = super().build_logger(*args, **kwargs)
        survive_logging(logger)
        self._screen = Screen.of(logger)
        return logger

    def dump_config(self) -> None:
        """Leave the work dir's config alone until this run has claimed it."""

    def _out_dir(self) -> str | None:
        """Return where the config wants the checkpoints, if elsewhere."""
        savers = (h for h in self.hooks if isinstance(h, CheckpointHook))
        return next((hook.out_dir for hook in savers), None)

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = 'cpu',
        strict: bool = False,
        revise_keys: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """Load weights that fit; for a resume the file must hold the rest too.

        Training needs the backbone, and for our own models every part that
        the file has; a test and a resume need the whole model.

        Args:
            filename: File or URL.
            map_location: As for ``torch.load``.
            strict: Need the whole model in any case.
            revise_keys: Patterns to replace in the names of the file, beside
                the ``module.`` of DistributedDataParallel.

        Raises:
            CheckpointError: If what is needed is not there, or if it is not
                the state of a run like this one.
        """
        checkpoint: dict[str, Any] = checkpoint_io.load(filename, map_location)
        checkpoint_io.state_dict_of(checkpoint, filename)  # There are some?
        if self._resuming:
            check_state(self, checkpoint, filename)
            self._resumed_meta = checkpoint['meta']
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        weights = checkpoint_io.state_dict_of(checkpoint, filename)
        for pattern, text in revise_keys:
            weights = {
                re.sub(pattern, text, name): value
                for name, value in weights.items()
            }
        self._fill(weights, filename, strict)
        backbone = getattr(bare_model(self), 'backbone', None)
        if isinstance(backbone, nn.Module) and not self._resuming:
            partial = bool(self.cfg.get('allow_partial'))
            hold(filename, backbone, 'model.backbone', partial, checkpoint)
        if self._resuming:
            check_optimizers(self, checkpoint, filename)
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}', extra=ABOUT)
        trained = value_at(checkpoint, 'meta.class_folders')
        if trained and isinstance(self._test_loop, BaseLoop):
            class_names.renumber(
                tuple(map(str, trained)),
                self._test_loop.dataloader.dataset,
                (repr(filename), 'test_dataloader'),
            )
        return checkpoint

    def _fill(
        self, weights: Mapping[str, Tensor], source: str, strict: bool
    ) -> None:
        model = bare_model(self)
        if self._resuming:
            fit_state(model, weights, source)
            return
        needed: tuple[str, ...] = WHOLE
        if self._for_training and not strict:
            ours = two_phase_model(self) is not None
            needed = tuple(
                f'{name}.'
                for name, _ in model.named_children()
                if name == 'backbone'
                or (ours and any(w.startswith(f'{name}.') for w in weights))
            )
        fit = checkpoint_io.load_into(
            model,
            weights,
            source,
            needed=needed,
            allow_extra=('*',),
            partial=self.cfg.get('allow_partial', False),
            mend=MEND if self._for_training else '',
        )
        level = logging.WARNING if fit.stays() else logging.INFO
        self.logger.log(level, f'{source}: {fit.report()}.')

    def _init_model_weights(self) -> None:
        model, cfg = bare_model(self), self.cfg
        hooked = any(hook.verifies_weights for hook in self._run_hooks())
        ours = two_phase_model(self) is not None and not hooked
        partial = cfg.get('allow_partial', False)
        tell_teachers(model)
        with verified(model, ours, partial, compared=not hooked or partial):
            super()._init_model_weights()

    @checkpoint_io.guarded
    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        *args: Any,
        meta: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save, with what a resume by other processes needs to know."""
        meta = {
            'processes': describe_processes(self),
            'run': self._described,
            **self._method(),
            **self._architecture(),
            'class_folders': class_names.folder_names(
                self.train_dataloader.dataset
            ),
            **(meta or {}),
        }
        super().save_checkpoint(out_dir, filename, *args, meta=meta, **kwargs)

    def _method(self) -> dict[str, Any]:
        """Tell later readers of a checkpoint what, and who, trained it."""
        model = two_phase_model(self)
        if model is None:
            return {}
        name = bare_type(self.cfg.get('model') or {}) or type(model).__name__
        told: dict[str, Any] = {
            'method': name,
            'key_encoder': model.key_encoder_name,
        }
        licences: dict[str, list[str | None]] = {}
        for each in model.teachers:
            licences.setdefault(each.network, []).append(each.license)
        if licences:  # Teachers of one name may be under several.
            told['teachers'] = {
                name: ', '.join(x or 'unknown' for x in dict.fromkeys(own))
                if any(own)
                else None
                for name, own in licences.items()
            }
        if model.m_power != 1.0:
            told['m_power'] = model.m_power
        return told

    def _architecture(self) -> dict[str, Any]:
        """Tell what no shape tells of the backbone."""
        backbone = getattr(bare_model(self), 'backbone', None)
        if not isinstance(backbone, nn.Module):
            return {}
        return {'architecture': architecture_of(backbone)}

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build it.

        Raises:
            KeyError: If there is no such optimizer.
        """
        if isinstance(optim_wrapper, dict):
            kind = value_at(optim_wrapper, 'optimizer.type')
            if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
                raise KeyError(
                    f'optim_wrapper.optimizer.type={kind!r} is unknown; use '
                    'for example SGD, AdamW or LARS.'
                )
        return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build the schedules, fitted to the run if the config wants it."""
        if self._schedule is None:
            self._schedule = Schedule.of(self, scheduler)
            if self._schedule is not None:
                scheduler = self._schedule.configs
        return super().build_param_scheduler(scheduler)

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """Build it; a full disk then costs scalars, not the run."""
        built = super().build_visualizer(visualizer)
        for backend in backends_of(built):
            survive_in(backend)
        return built

    def build_train_loop(self, loop: Any) -> Any:
        """Build the loop.

        Raises:
            ValueError: If an epoch would have no iteration, which the
                schedules cannot be built for, or no end.
        """
        if isinstance(loop, dict) and loop.get('type') in _LOOPS:
            loop = {**loop, 'type': _LOOPS[loop['type']]}
        build = super().build_train_loop
        built = self._with_classes(build, loop, 'train_dataloader')
        fit_sampler(built)
        check_loader(built.dataloader, self.world_size)
        return built

    def _with_classes(
        self, build: Callable[[Any], Any], loop: Any, place: str
    ) -> Any:
        """Build a loop; hold the classes of foreign data against the model."""
        with emptied_explained(self.cfg.get(place), place):
            built = build(loop)
        if two_phase_model(self) is None:
            data = built.dataloader.dataset
            check_classes(data, bare_model(self), place)
        return built

    def build_val_loop(self, loop: Any) -> Any:
        """Build the loop; its labels count as those of the training.

        Raises:
            ValueError: If it has a class that the training does not know.
        """
        build = super().build_val_loop
        built = self._with_classes(build, loop, 'val_dataloader')
        if isinstance(self._train_loop, BaseLoop):
            class_names.renumber(
                class_names.folder_names(self.train_dataloader.dataset),
                built.dataloader.dataset,
                ('train_dataloader', 'val_dataloader'),
            )
        return built

    def scale_lr(
        self,
        optim_wrapper: OptimWrapper,
        auto_scale_lr: dict[str, Any] | None = None,
    ) -> None:
        """Scale lr linearly by the effective batch, accumulation included.

        Then m, if the config wants it.

        mmengine's own rule leaves the accumulation out. The effective batch,
        and the rates before and after, are logged in any case.

        Args:
            optim_wrapper: The built optimizer wrapper.
            auto_scale_lr: ``dict(base_batch_size=…, enable=…)``.

        Raises:
            ValueError: If it is enabled without ``base_batch_size``.
        """
        loader = self.train_dataloader
        # A batch sampler, as mmdet has it, forms the batches itself.
        batch = loader.batch_size or loader.batch_sampler.batch_size
        accumulation = accumulation_of(optim_wrapper)
        effective = batch * self.world_size * accumulation
        base = (auto_scale_lr or {}).get('base_batch_size')
        enabled = (auto_scale_lr or {}).get('enable', False)
        if enabled and not base:
            raise ValueError(
                'auto_scale_lr is enabled, but base_batch_size, the batch '
                "that the config's lr is meant for, is not set: add "
                'auto_scale_lr=dict(base_batch_size=256, enable=True).'
            )
        groups = optim_wrapper.param_groups
        text = (
            f'Effective batch {effective} = {batch} per process x '
            f'{self.world_size} processes x {accumulation} accumulation'
        )
        lr = shown_rates(groups)
        if enabled:
            for group in groups:
                group['lr'] *= effective / base
            text += f'; lr {lr} for {base} scaled to {shown_rates(groups)}'
        elif base and base != effective:
            text += (
                f"; the config's lr {lr} is meant for {base}: "
                f'--auto-scale-lr would scale it by {effective / base:g}'
            )
        self._configured = settings_of(groups)
        self.logger.info(f'{text}.', extra=SETTING)
        scale_momentum(self, effective)

    def _maybe_compile(self, target: str) -> None:
        """Compile the networks of our models, not their whole step.

        The step draws by its own number and steps the optimizer: compiled,
        it would be compiled again in every iteration. Compiling in place
        keeps names, hooks and checkpoints as they are.
        """
        options = self.cfg.get('compile')
        model = bare_model(self)
        if not options or two_phase_model(self) is None:
            super()._maybe_compile(target)
            return
        options = {} if options is True else dict(options)
        names = []
        for name, part in model.named_children():
            if any(True for _ in part.parameters()):
                part.compile(**options)
                names.append(name)
        self.logger.info(
            f'torch.compile for {", ".join(names)}: the first iterations, '
            'and the first evaluation, take minutes.',
            extra=ABOUT,
        )
