import os
import re
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmmoco.engine import checkpoint_io
from mmmoco.engine.disk import survive, warn
from mmmoco.registry import HOOKS


@HOOKS.register_module()
class ContrastCheckpointHook(CheckpointHook):
    """Save only states from which a run can go on exactly.

    A checkpoint that is due in the middle of a gradient accumulation waits
    for the next optimizer step: gradients and staged keys are not saved. An
    outdated checkpoint is deleted after the new one is written, never before.
    A save that fails (the disk is full) is lost with a warning and the run
    goes on; only if the last state cannot be saved either, it ends with an
    error.

    Args:
        **kwargs: As for mmengine's CheckpointHook.
    """

    priority = 'VERY_LOW'
    by_epoch: bool
    filename_tmpl: str
    last_ckpt: str | None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._waiting = False
        self._kept: list[str] = []
        self._failed: OSError | None = None  # of the newest save
        self._saved_at = -1

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Save if it is due, or if a save waits for this step."""
        due = not self.by_epoch and (
            self.every_n_train_iters(runner, self.interval, self.save_begin)
            or (self.save_last and self.is_last_train_iter(runner))
        )
        if not (due or self._waiting):
            return
        self._waiting = not runner.optim_wrapper.should_update()
        if self._waiting:
            return
        runner.logger.info(
            f'Saving checkpoint at {runner.iter + 1} iterations'
        )
        self._save_iteration(runner, runner.iter + 1)

    def save_now(self, runner: Runner, done: int) -> bool:
        """Save the state of an optimizer step, unless that was done.

        Args:
            runner: The runner.
            done: Iterations done.

        Returns:
            Whether the state is saved.
        """
        if self._saved_at != done:
            self._save_iteration(runner, done)
        return self._failed is None

    def after_train(self, runner: Runner) -> None:
        """Try again, if the last state could not be saved.

        Raises:
            CheckpointError: If it still cannot.
        """
        if self._failed is not None:
            self._save_iteration(runner, runner.iter)
        if self._failed is not None:
            saved = 'Nothing was saved before'
            if self.last_ckpt:
                saved = f'{self.last_ckpt} is what was saved before'
            raise checkpoint_io.CheckpointError(
                'The run is complete, but its last state '
                f'{self._failed.strerror}. {saved}: make room and --resume.'
            )
        super().after_train(runner)

    def after_val_epoch(self, runner: Runner, metrics: Any) -> None:
        """Save the best model, if that is asked for and works."""
        with survive('The best model is not saved'):
            super().after_val_epoch(runner, metrics)

    def _save_iteration(self, runner: Runner, done: int) -> None:
        """Save under the number of the iteration, in any loop."""
        by_epoch, template = self.by_epoch, self.filename_tmpl
        self.by_epoch = False
        self.filename_tmpl = template.replace('epoch_', 'iter_')
        meta = dict(epoch=runner.epoch, iter=done)
        try:
            self._save_checkpoint_with_step(runner, done, meta)
        finally:
            self.by_epoch, self.filename_tmpl = by_epoch, template

    def after_train_epoch(self, runner: Runner) -> None:
        """Save at the end of an epoch, or after the accumulation over it."""
        due = self.by_epoch and (
            self.every_n_epochs(runner, self.interval, self.save_begin)
            or (self.save_last and self.is_last_train_epoch(runner))
        )
        if due and runner.optim_wrapper.should_update():
            super().after_train_epoch(runner)
        elif due:
            self._waiting = True

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder; remember the files that a resumed run kept.

        Their names come from a checkpoint and decide what is deleted later:
        only our own files in our own folder count.
        """
        folder = self._folder(runner)
        known = runner.message_hub.runtime_info
        known.pop('keep_ckpt_ids', None)  # mmengine's own list of them
        number = r'\d{1,18}'.join(
            map(re.escape, re.split(r'\{[^}]*\}', self.filename_tmpl))
        )
        # A run by epochs saves iterations when it is stopped, and may have
        # become one by iterations.
        self._kept, refused = _own(
            known.pop('kept_checkpoints', []),
            folder,
            re.sub('epoch_|iter_', '(epoch|iter)_', number),
        )
        for key in [key for key in known if key.startswith('best_ckpt')]:
            # These are named with the folder that they were saved in.
            path = known.pop(key)
            name = os.path.basename(path) if isinstance(path, str) else path
            there, strangers = _own([name], folder, r'best_[^/]*\.pth')
            refused += strangers
            for name in there:
                known[key] = self.file_backend.join_path(folder, name)
        if refused:
            runner.logger.warning(
                f'The checkpoint names {len(refused)} file(s) that no run '
                f'saves as checkpoints, such as {refused[0][:200]}: they are '
                'left alone.'
            )
        super().before_train(runner)

    def _folder(self, runner: Runner) -> str:
        """Return where checkpoints go; the parent class knows it later."""
        if '://' in str(self.out_dir or ''):
            return str(self.out_dir)
        folders = checkpoint_io.folders_of(Path(runner.work_dir), self.out_dir)
        return str(folders[-1])

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, Any]
    ) -> None:
        name = self.filename_tmpl.format(step)
        kept, last = self._kept, self.last_ckpt
        self._kept = [file for file in kept if file != name] + [name]
        outdated: list[str] = []
        if self.max_keep_ckpts > 0:
            outdated = self._kept[: -self.max_keep_ckpts]
            self._kept = self._kept[-self.max_keep_ckpts :]
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        self._publish(runner)
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                pointer = os.path.join(runner.work_dir, 'last_checkpoint')
                checkpoint_io.write_text(pointer, self.last_ckpt)
        except OSError as error:
            # The older files are still there, and still the ones to keep.
            self._kept, self.last_ckpt = kept, last
            self._publish(runner)
            self._failed = error
            warn(
                f'THE CHECKPOINT WAS NOT SAVED: {error}. Training goes on; '
                f'the newest good one is {last}. Make room: the next save '
                'comes when it is due.'
            )
            return
        self._failed, self._saved_at = None, meta['iter']
        if is_main_process():
            for file in outdated:
                path = self.file_backend.join_path(self.out_dir, file)
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)

    def _publish(self, runner: Runner) -> None:
        """Put into the checkpoint what a resumed run needs to know."""
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.message_hub.update_info('kept_checkpoints', self._kept)


def _own(names: Any, folder: str, pattern: str) -> tuple[list[str], list[str]]:
    """Tell our files from whatever else a checkpoint names.

    Args:
        names: As it was read.
        folder: Where ours lie.
        pattern: Of their names.

    Returns:
        The names of those that are there, and what was refused.
    """
    if not isinstance(names, list | tuple):
        return [], [repr(names)]
    there, refused = [], []
    for name in names:
        if not (isinstance(name, str) and re.fullmatch(pattern, name)):
            refused.append(repr(name))
        elif '://' in folder:
            there.append(name)
        else:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                there.append(name)
    return there, refused
