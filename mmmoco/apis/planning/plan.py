"""From a folder to a config that trains: look, choose, measure, write."""

import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmmoco.apis.config.files import load_config
from mmmoco.apis.preflight.memory_estimate import estimate_memory
from mmmoco.engine import checkpoint_io
from mmmoco.engine.instances import own_instances
from mmmoco.engine.screen import Screen

from .budget import evaluation_seconds, spend, write_lists
from .choices import Choices, choose
from .config_text import config_text
from .images import Images, look
from .machine import this_machine
from .measure import Speed, measure_speed
from .start import Start, read_start
from .wishes import Wishes

#: Part of the memory that a training may take, by the estimate.
_ROOM = 0.85


@dataclass(frozen=True)
class Plan:
    """A config that was written for a folder of images.

    Attributes:
        config: Its path.
        work_dir: Of the run.
        rows: What was chosen, and why.
        remarks: Warnings.
        images: Number of images.
        iterations: Of the training.
        seconds_per_iteration: Measured.
        train_seconds: Of the training with its evaluations.
        memory: Bytes, estimated.
        gpus: Processes that it is for.
    """

    config: str
    work_dir: str
    rows: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    images: int
    iterations: int
    seconds_per_iteration: float
    train_seconds: float
    memory: int
    gpus: int = 1

    def __str__(self) -> str:
        command = f'mmmoco train {self.config}'
        if self.gpus > 1:
            command = (
                f'torchrun --nproc_per_node {self.gpus} -m {command} '
                '--launcher pytorch'
            )
        return (
            f'{self.table()}\nconfig      {self.config}\ntrain it    {command}'
        )

    def table(self) -> str:
        """Return what was chosen and why, aligned."""
        rows = [*self.rows, *(('warning', text) for text in self.remarks)]
        lines = []
        for name, text in rows:
            lines += textwrap.wrap(
                text,
                width=99,
                initial_indent=f'{name:10}  ',
                subsequent_indent=' ' * 12,
                break_long_words=False,
                break_on_hyphens=False,
            )
        return '\n'.join(lines)


def make_plan(wishes: Wishes) -> Plan:
    """Look at images and machine, choose, measure, and write the config.

    Args:
        wishes: What the user has said; it has been checked.

    Raises:
        FileNotFoundError: If there are no images.
        OSError: If they cannot be read.
        ValueError: If something does not fit, or the budget is too small.
    """
    start = time.monotonic()
    with own_instances():
        # Of what is built and measured only warnings are shown, and none
        # about one process where several are planned for.
        level = 'WARNING' if wishes.gpus == 1 else 'ERROR'
        Screen.of(MMLogger.get_instance('plan', log_level=level))
        images = look(
            wishes.data, wishes.include, wishes.exclude, wishes.order
        )
        start_from = read_start(wishes)
        chosen, cfg, memory = _fitting(images, wishes, start_from)
        speed = measure_speed(cfg)
        spend(chosen, speed.seconds, time.monotonic() - start)
        path = wishes.config
        path.parent.mkdir(parents=True, exist_ok=True)
        lists = write_lists(chosen, path.parent)
        checkpoint_io.write_text(str(path), config_text(chosen, lists))
        load_config(str(path))  # What was written can be read.
    training = chosen.iterations * speed.seconds
    seconds = training + evaluation_seconds(chosen, speed.seconds)
    return Plan(
        config=str(path),
        work_dir=str(wishes.folder),
        rows=_rows(chosen, seconds, speed, memory),
        remarks=tuple(chosen.remarks),
        images=len(chosen.images.paths),
        iterations=chosen.iterations,
        seconds_per_iteration=speed.seconds,
        train_seconds=seconds,
        memory=memory,
        gpus=wishes.gpus,
    )


def _fitting(
    images: Images, wishes: Wishes, start: Start | None
) -> tuple[Choices, Config, int]:
    """Return choices that the memory has room for, a draft, and its bytes.

    Raises:
        ValueError: If there is room for no batch.
    """
    machine = this_machine()
    chosen = choose(images, machine, wishes, start=start)
    while True:
        cfg = _draft(chosen)
        memory = estimate_memory(cfg, processes=wishes.gpus).total
        if memory <= _ROOM * machine.memory:
            return chosen, cfg, memory
        if chosen.micro_batch < 8:
            raise ValueError(
                f'{chosen.backbone.name} at {chosen.image_size} pixels needs '
                f'{memory / 2**30:.1f} GiB for {chosen.micro_batch} images, '
                f'of {machine.memory / 2**30:.1f} GiB: take a smaller '
                '--image-size or --backbone.'
            )
        most = chosen.micro_batch // 2
        chosen = choose(images, machine, wishes, most, start)


def _draft(chosen: Choices) -> Config:
    """Return the config as it is before its length is known."""
    bare = replace(
        chosen,
        images=replace(chosen.images, labelled=None),
        why=chosen.why | dict(length='', m='', warmup=''),
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / 'draft.py'
        path.write_text(config_text(bare, []))
        return load_config(str(path))


def _rows(
    chosen: Choices, seconds: float, speed: Speed, memory: int
) -> tuple[tuple[str, str], ...]:
    """Return what was chosen and why, for the screen."""
    needed = max(memory / 2**30, 0.1)
    rows = {
        'images': str(chosen.images),
        'hardware': f'{chosen.machine}; {needed:.1f} GiB needed',
    }
    for name, value in {
        'method': chosen.method,
        'backbone': chosen.backbone.name,
        'image_size': chosen.image_size,
        'batch': chosen.batch,
        'lr': f'{chosen.optimizer["lr"]:g}',
        'm': f'{chosen.m:g}',
        'queue': f'{chosen.queue:,}',
        'length': chosen.length_text,
    }.items():
        if name in chosen.why:  # There may be no queue.
            rows[name.replace('_', ' ')] = f'{value}: {chosen.why[name]}'
    rows['time'] = f'about {duration(seconds)}, by {speed}'
    if chosen.images.labelled:
        bank, query = chosen.evaluated
        rows['k-NN'] = f'{query:,} images, by the votes of {bank:,}'
    return tuple(rows.items())


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    if seconds < 5400:
        return f'{seconds / 60:.0f} min'
    return f'{seconds / 3600:.1f} h'
