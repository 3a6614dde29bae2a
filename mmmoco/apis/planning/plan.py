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
from mmmoco.messages import printable

from .budget import evaluation_seconds, spend, write_lists
from .choices import Choices, Wishes, choose
from .config_text import config_path, config_text
from .images import Images, look
from .machine import this_machine
from .measure import Speed, measure_speed

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

    def __str__(self) -> str:
        return (
            f'{self.table()}\nconfig      {self.config}\n'
            f'train it    mmmoco train {self.config}'
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


def make_plan(data: str, wishes: Wishes, work_dir: str | None) -> Plan:
    """Look at images and machine, choose, measure, and write the config.

    Args:
        data: Folder of images.
        wishes: What the user has said.
        work_dir: Of the run.

    Raises:
        FileNotFoundError: If there are no images.
        OSError: If they cannot be read.
        ValueError: If something does not fit, or the budget is too small.
    """
    start = time.monotonic()
    wishes.check()
    with own_instances():
        # Of what is built and measured only warnings are shown.
        MMLogger.get_instance('plan', log_level='WARNING')
        images = look(data)
        work_dir = work_dir or f'work_dirs/{_name(images.root)}'
        _require_unused(work_dir)
        chosen, cfg, memory = _fitting(images, wishes, work_dir)
        speed = measure_speed(cfg)
        spend(chosen, speed.seconds, time.monotonic() - start)
        path = config_path(work_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        lists = write_lists(chosen, path.parent)
        text = config_text(chosen, work_dir, lists)
        checkpoint_io.write_text(str(path), text)
        load_config(str(path))  # What was written can be read.
    training = chosen.iterations * speed.seconds
    seconds = training + evaluation_seconds(chosen, speed.seconds)
    return Plan(
        config=str(path),
        work_dir=work_dir,
        rows=_rows(chosen, seconds, speed, memory),
        remarks=tuple(chosen.remarks),
        images=len(images.paths),
        iterations=chosen.iterations,
        seconds_per_iteration=speed.seconds,
        train_seconds=seconds,
        memory=memory,
    )


def _name(root: str) -> str:
    """Return what a run on a folder is called."""
    path = Path(root)
    plain = {'images', 'image', 'img_dir', 'data', 'imgs', 'img', 'jpg'}
    if path.name.lower() in plain and path.parent.name:
        path = path.parent
    return printable(path.name) or 'images'


def _require_unused(work_dir: str) -> None:
    """See that a work dir holds no run, before minutes are spent.

    Raises:
        ValueError: If it does.
    """
    path = config_path(work_dir)
    if checkpoint_io.any_numbered(work_dir, None):
        go_on = f'mmmoco train {path} --resume goes on with it, or '
        raise ValueError(
            f'--work-dir {work_dir!r} holds the checkpoints of a run: '
            f'{go_on if path.is_file() else ""}take another one.'
        )


def _fitting(
    images: Images, wishes: Wishes, work_dir: str
) -> tuple[Choices, Config, int]:
    """Return choices that the memory has room for, a draft, and its bytes.

    Raises:
        ValueError: If there is room for no batch.
    """
    machine = this_machine()
    chosen = choose(images, machine, wishes)
    while True:
        cfg = _draft(chosen, work_dir)
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
        chosen = choose(images, machine, wishes, chosen.micro_batch // 2)


def _draft(chosen: Choices, work_dir: str) -> Config:
    """Return the config as it is before its length is known."""
    bare = replace(
        chosen,
        images=replace(chosen.images, labelled=None),
        why=chosen.why | dict(length='', m='', warmup=''),
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / 'draft.py'
        path.write_text(config_text(bare, work_dir, []))
        return load_config(str(path))


def _rows(
    chosen: Choices, seconds: float, speed: Speed, memory: int
) -> tuple[tuple[str, str], ...]:
    """Return what was chosen and why, for the screen."""
    rows = {
        'images': str(chosen.images),
        'hardware': str(chosen.machine),
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
    room = f'{chosen.machine.memory / 2**30:.0f} GiB'
    rows['time'] = f'about {duration(seconds)}, measured by {speed}'
    rows['memory'] = f'{memory / 2**30:.1f} of {room}, estimated'
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
