import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, is_main_process
from mmengine.runner import Runner

from mmmoco.engine import checkpoint_io
from mmmoco.engine.disk import survive, warn
from mmmoco.engine.endings import ExpectedEnd
from mmmoco.engine.run_hook import RunHook
from mmmoco.messages import few
from mmmoco.registry import HOOKS

LIST_NAME = 'bad_files.txt'


class TooManyBadFilesError(ExpectedEnd, ValueError):
    """So many samples could not be read that the run was stopped."""


@HOOKS.register_module()
class BadFilesHook(RunHook):
    """List the files that could not be read, and stop if they are too many.

    The data set replaces a bad sample by another and says so in ``'bad'``;
    counted is what the training received, over all processes. Each file is
    listed once, with the reason, in ``WORK_DIR/bad_files.txt``, also over
    resumed runs; a run from the start begins a new list.

    Args:
        max_fraction: Stop if more of the samples than this were bad.
        min_samples: Judge only after so many samples.
        interval: Iterations between two looks.
    """

    priority = 'LOW'

    def __init__(
        self,
        max_fraction: float = 0.05,
        min_samples: int = 200,
        interval: int = 50,
    ) -> None:
        if not 0.0 <= max_fraction <= 1.0:
            raise ValueError(
                f'BadFilesHook: max_fraction={max_fraction} must lie within '
                '[0, 1].'
            )
        self.max_fraction, self.min_samples = max_fraction, min_samples
        self.interval = interval
        self.bad = self.seen = 0  # of this process, since the last look
        self.all_bad = self.all_seen = 0
        self._judged = False
        self._listed: set[str] = set()
        self._notes: tempfile.TemporaryDirectory[str] | None = None
        self._log: Any = None

    def before_train(self, runner: Runner) -> None:
        """Tell the data set where its workers note bad files."""
        dataset = runner.train_dataloader.dataset
        if hasattr(dataset, 'bad_files'):
            self._log = dataset.bad_files
            try:
                # Workers run on the machine of their process.
                self._notes = tempfile.TemporaryDirectory(prefix='mmmoco_bad_')
            except OSError as error:
                warn(
                    f'No temporary folder ({error}): bad files are named '
                    f'here, not in {LIST_NAME}.'
                )
            else:
                self._log.move_to(self._notes.name)
        file = Path(runner.work_dir, LIST_NAME)
        if not is_main_process():
            return
        with survive(f'{file} is not continued'):
            if runner.iter == 0:
                file.unlink(missing_ok=True)
            elif file.is_file():
                text = file.read_text('utf-8', 'surrogateescape')
                self._listed = {
                    line.partition('\t')[0] for line in text.splitlines()
                }

    def after_train_iter(
        self, runner: Runner, _: int = 0, data_batch: Any = None, **__: Any
    ) -> None:
        """Count; look now and then, at the same iterations everywhere.

        Raises:
            TooManyBadFilesError: If too many samples are bad.
        """
        if self._log is None or not isinstance(data_batch, dict):
            return
        self.bad += int((torch.as_tensor(data_batch.get('bad', 0)) > 0).sum())
        self.seen += len(data_batch['ids'])
        total = self.all_seen + self.seen * runner.world_size
        first = not self._judged and total >= self.min_samples
        if first or self.every_n_train_iters(runner, self.interval):
            self.look(runner)

    def after_train(self, runner: Runner) -> None:
        """Look a last time."""
        if self._log is not None:
            self.look(runner)
        if self.all_bad:
            runner.logger.warning(self.describe(runner))

    def release(self) -> None:
        """Remove the notes."""
        if self._notes is not None:
            with contextlib.suppress(OSError):
                self._notes.cleanup()
            self._notes = None

    def look(self, runner: Runner) -> None:
        """Add up over the processes, list what is new, and judge.

        Raises:
            TooManyBadFilesError: If too many samples are bad.
        """
        # A whole shard can be bad without a bad sample: ask for the notes.
        found = self._log.read()
        counts = torch.tensor([self.bad, self.seen, len(found)])
        all_reduce(counts)
        self.all_bad += int(counts[0])
        self.all_seen += int(counts[1])
        self.bad = self.seen = 0
        if int(counts[2]):
            self._list(runner, found)
        if self.all_seen < self.min_samples:
            return
        self._judged = True
        if self.all_bad > self.max_fraction * self.all_seen:
            raise TooManyBadFilesError(
                f'{self.describe(runner)}; more than '
                f'{100 * self.max_fraction:g} % (BadFilesHook.max_fraction '
                f'= {self.max_fraction:g}).'
            )

    def _list(self, runner: Runner, found: list[tuple[str, str]]) -> None:
        """Append to the list what is not in it yet."""
        everywhere: list[list[tuple[str, str]]] = all_gather_object(found)
        if not is_main_process():
            return
        new: dict[str, str] = {}
        for name, reason in (bad for part in everywhere for bad in part):
            column = _one_line(name)
            if column not in self._listed:
                new.setdefault(column, _one_line(reason))
        if not new:
            return
        self._listed |= new.keys()
        file = os.path.join(runner.work_dir, LIST_NAME)
        text = ''.join(f'{name}\t{reason}\n' for name, reason in new.items())
        with survive(f'{file} is not written', file):
            checkpoint_io.append_text(file, text)
        shown = few([f'{n!r} ({r})' for n, r in new.items()], 3)
        runner.logger.warning(
            f'{len(new)} bad files were replaced by others: {shown}; '
            f'all are listed in {file}'
        )

    def describe(self, runner: Runner) -> str:
        """Return how many samples were bad, in one line."""
        file = os.path.join(runner.work_dir, LIST_NAME)
        rate = 100 * self.all_bad / max(self.all_seen, 1)
        return (
            f'{self.all_bad} of {self.all_seen} samples ({rate:.1f} %) could '
            f'not be read and were replaced; the files are listed in {file!r}'
        )


def _one_line(text: str) -> str:
    """Keep names that hold tabs or line ends within their column."""
    breaks = '\t\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029'
    if any(letter in text for letter in breaks):
        return text.encode('unicode_escape').decode()
    return text
