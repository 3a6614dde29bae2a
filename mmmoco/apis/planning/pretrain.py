"""Plan, train, judge and export, one after the other."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mmmoco.apis.exchange.jobs import export_backbone
from mmmoco.apis.exchange.model_folder import check_place
from mmmoco.apis.training.jobs import train
from mmmoco.engine import checkpoint_io
from mmmoco.engine.endings import ExpectedEnd
from mmmoco.engine.hooks.drop_guard_hook import FellBelowStart
from mmmoco.engine.results import read_results
from mmmoco.engine.screen import settings_told
from mmmoco.messages import log_info, log_warning

from .plan import Plan, duration, make_plan
from .wishes import Wishes


@dataclass(frozen=True)
class Pretrained:
    """A backbone that was made from a folder of images.

    Attributes:
        plan: What was trained.
        checkpoint: The newest one; with --init the best.
        export: The folder with the backbone for other libraries.
        seconds: That all of it took.
        knn: Top-1 of k-NN in percent after the training, with --init of the
            best checkpoint; None without classes.
        untrained: The same before it.
        queries: Images that were classified for it.
        lines: What to know, in five lines.
        problem: Why the training was stopped; '' where it was not.
    """

    plan: Plan
    checkpoint: str
    export: str
    seconds: float
    knn: float | None
    untrained: float | None
    queries: int
    lines: tuple[str, ...]
    problem: str = ''

    def __str__(self) -> str:
        return '\n'.join(self.lines)


def make_backbone(wishes: Wishes) -> Pretrained:
    """Make a backbone.

    Raises:
        FileNotFoundError: If there are no images.
        OSError: If they cannot be read.
        ValueError: If something does not fit, or the time is too short.
    """
    start = time.monotonic()
    plan, known, goes_on = _planned(wishes)
    export = f'{plan.work_dir}/export'
    check_place(export, 'unknown', overwrite=True)  # Not hours later.
    # Else it starts with what the config begins with.
    resume = goes_on and checkpoint_io.any_numbered(plan.work_dir, None)
    problem = ''
    try:
        with _told_if_stopped(plan), settings_told():
            done = train(plan.config, work_dir=plan.work_dir, resume=resume)
        checkpoint = done.checkpoint
    except FellBelowStart as stop:
        problem, checkpoint = str(stop), None
    if wishes.init:  # What the guard kept: the start is among them.
        best = [*Path(plan.work_dir).glob('best_*_iter_*.pth')]
        checkpoint = str(best[0]) if best else checkpoint
    if checkpoint is None:
        raise ExpectedEnd(
            problem or f'No checkpoint was saved in {plan.work_dir}.'
        )
    with _told_if_stopped(plan):
        written = export_backbone(checkpoint, export, overwrite=True)
    wishes.note.unlink()
    figures = [
        result
        for result in read_results(plan.work_dir)[known:]
        if result['task'] == 'knn'
    ]
    before = after = None
    queries = 0
    if figures:
        top = [figure['metrics']['top1'] for figure in figures]
        before, after = top[0], max(top) if wishes.init else top[-1]
        queries = figures[-1]['protocol']['queries']
    seconds = time.monotonic() - start
    took, asked = duration(seconds), 3600 * (wishes.hours or math.inf)
    if seconds > 1.2 * asked:
        took += f' (asked for: {duration(asked)}; the machine was slower)'
    place = Path(plan.work_dir, Path(checkpoint).name)
    rows = {name: text.partition(':')[0] for name, text in plan.rows}
    first = 'the start' if wishes.init else 'the untrained network'
    verdict, better = judged(before, after, queries, first)
    which = kept_for(place.name, ranked=bool(figures))
    if problem:
        took += ' (it was stopped)'
    longer = '--hours 8'
    if wishes.epochs:
        longer = f'--epochs {4 * wishes.epochs}'
    elif wishes.hours:
        longer = f'--hours {4 * wishes.hours:g}'
    following = (
        f'{longer} with another --work-dir; more images help most, then a '
        'longer training.'
    )
    if not figures:
        following = (
            f'mmmoco report {plan.work_dir} draws the curves; {longer} with '
            'another --work-dir trains longer.'
        )
    elif better:
        following = f'mmmoco probe {place} (linear probe), or '
        following += f'{longer}.'
    return Pretrained(
        plan=plan,
        checkpoint=checkpoint,
        export=export,
        seconds=seconds,
        knn=after,
        untrained=before,
        queries=queries,
        lines=(
            f'Made: {rows["backbone"]} by {rows["method"]}, '
            f'{plan.iterations:,} iterations on {plan.images:,} images, in '
            f'{took}.',
            f'Where: {export} (backbone), {place} ({which}), '
            f'{plan.config} (config).',
            f'How good: {verdict}',
            f'Use it: {written.loading}',
            f'Next: {following}',
        ),
        problem=problem,
    )


def _planned(wishes: Wishes) -> tuple[Plan, int, bool]:
    """Return the plan, the results before it, and whether it had begun."""
    noted = wishes.begun()
    if noted is not None:
        plan = Plan(**noted['plan'])
        log_info(f'It goes on as planned: {plan.config}')
        return plan, noted['known'], True
    plan = make_plan(wishes)
    log_info(f'The plan:\n{plan.table()}')
    known = len(read_results(plan.work_dir))
    note = dict(wishes=asdict(wishes), plan=asdict(plan), known=known)
    checkpoint_io.write_text(wishes.note, json.dumps(note))
    return plan, known, False


@contextmanager
def _told_if_stopped(plan: Plan) -> Iterator[None]:
    """Say where it goes on, if it is stopped."""
    try:
        yield
    except KeyboardInterrupt:
        newest = checkpoint_io.find_latest(plan.work_dir, None)
        log_warning(
            'Stopped. Given again, the same command goes on from '
            f'{newest or "the first iteration: nothing was saved yet"}.'
        )
        raise


def kept_for(name: str, ranked: bool) -> str:
    """Return what the network of a checkpoint is to the run.

    Args:
        name: Of the file.
        ranked: Networks were compared by k-NN; else by their distance from
            the start, which tells of none that it is better.
    """
    if name.endswith('_iter_0.pth'):
        what = 'better' if ranked else 'within the margin'
        return f'the start itself: nothing was {what}'
    if name.startswith('best_'):
        return 'the best' if ranked else 'the last within the margin'
    return 'training'


def judged(
    before: float | None,
    after: float | None,
    queries: int,
    first: str = 'the untrained network',
) -> tuple[str, bool]:
    """Say how good the network is, honestly, and whether it is better.

    Args:
        before: Top-1 in percent of the untrained network; None: no labels.
        after: Of the trained one.
        queries: Images that were classified.
        first: What the untrained network is called.
    """
    if before is None or after is None:
        return (
            'unknown: there are no class folders to judge by. Compare it with '
            f'{first} on your task: that may be as good.'
        ), False
    said = f'k-NN top-1 {after:.1f} % of {queries:,} images'
    if before >= 100:
        return (
            f'{said}, and {first} has 100 %: these classes are too easy to '
            'tell them apart.'
        ), False
    if after <= before:
        return (
            f"{said}, no better than {first}'s {before:.1f} %: "
            'this backbone has learnt nothing that k-NN sees.'
        ), False
    variance = sum(p / 100 * (1 - p / 100) for p in (before, after))
    # Two standard errors of a difference, in percent.
    if after - before <= 200 * math.sqrt(variance / max(1, queries)):
        return (
            f"{said}, within chance of {first}'s "
            f'{before:.1f} %: so few images cannot tell them apart.'
        ), False
    return f'{said}; {first} has {before:.1f} %.', True
