"""How long to train, and how many images to evaluate, in the time there is."""

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path

from mmmoco.engine import checkpoint_io

from .choices import WATCHED, Choices, set_length

#: Hours on a CPU, and epochs on a GPU, where nobody says how long.
_HOURS, _EPOCHS = 1.0, 200
#: Longer than any published run of MoCo is of no use; with few images, less.
_MOST_EPOCHS, _MOST_OF_FEW = 800, 200
_FEW = 1000
#: Part of the time that all evaluations may take.
_EVALUATION = 0.15
#: An image in an evaluation, as a part of its time in a training step.
_EVALUATED = 0.5
#: Seconds to start, to save and to export.
_AROUND = 15.0
_LEAST_ITERATIONS = 10
_LEAST_EVALUATED = 300


def spend(chosen: Choices, seconds: float, spent: float) -> None:
    """Set the length of the training, and the size of its evaluations.

    Args:
        chosen: The other choices.
        seconds: Of an iteration.
        spent: Seconds that planning took: part of the hours.

    Raises:
        ValueError: If the hours are too few for anything.
    """
    epochs, hours = chosen.wishes.epochs, chosen.wishes.hours
    per_epoch = chosen.per_epoch
    if epochs is None and hours is None:
        epochs = None if chosen.machine.on_cpu else _EPOCHS
        hours = _HOURS
    if epochs is not None:
        _evaluate(chosen, seconds, epochs * per_epoch * seconds)
        reason = 'as asked' if chosen.wishes.epochs else "as in MoCo's papers"
        _set(chosen, epochs * per_epoch, reason)
        return
    assert hours is not None
    whole = hours * 3600
    _evaluate(chosen, seconds, whole)
    around = spent + _AROUND + evaluation_seconds(chosen, seconds)
    fit = int((whole - around) / seconds)
    if fit < _LEAST_ITERATIONS:
        training = _LEAST_ITERATIONS * seconds
        enough = (around + training) / 3600 * 1.05  # Two digits, not below.
        raise ValueError(
            f'--hours {hours:g} are {whole:.0f} s, too few: planning, '
            f'starting and evaluating take {around:.0f} s, and '
            f'{_LEAST_ITERATIONS} iterations {training:.0f} s: give at least '
            f'--hours {enough:.2g}, a smaller --image-size, --backbone or '
            '--batch-size.'
        )
    few = len(chosen.images.paths) < _FEW
    most = _MOST_OF_FEW if few else _MOST_EPOCHS
    reason = f'what {hours:g} h have room for'
    if not chosen.wishes.hours:
        reason += ' (--hours, --epochs)'
    if fit > most * per_epoch:
        fit = most * per_epoch
        why = 'the images are few' if few else 'no published run is longer'
        reason = f'less than {hours:g} h have room for, since {why}'
    _set(chosen, fit, reason)


def _set(chosen: Choices, iterations: int, reason: str) -> None:
    """Count in epochs where they are many enough, and long enough."""
    per_epoch = chosen.per_epoch
    by_epoch = per_epoch >= 20 and iterations >= 2 * per_epoch
    length = iterations // per_epoch if by_epoch else iterations
    set_length(chosen, length, by_epoch, reason)


def _evaluate(chosen: Choices, seconds: float, whole: float) -> None:
    """Choose how many labelled images an evaluation takes, and how often."""
    chosen.evaluations = 6 if whole > 1800 else 2
    if chosen.start:  # Watched from the beginning.
        chosen.evaluations = 11
    labelled = chosen.images.labelled
    if labelled is None:
        watched = min(WATCHED, len(chosen.images.paths))
        chosen.evaluated = (watched if chosen.start else 0), 0
        return
    bank, query = len(labelled.bank), len(labelled.query or labelled.bank)
    each = chosen.evaluations * seconds / chosen.micro_batch * _EVALUATED
    most = max(_LEAST_EVALUATED, int(_EVALUATION * whole / each))
    if bank + query > most:
        if labelled.query is None:  # Each image is read for both.
            bank = query = most // 2
        else:
            query = min(query, most // 3)
            bank = min(bank, most - query)
    chosen.evaluated = bank, query


def evaluation_seconds(chosen: Choices, seconds: float) -> float:
    """Return what all evaluations take."""
    each = chosen.evaluations * seconds / chosen.micro_batch * _EVALUATED
    return sum(chosen.evaluated) * each


def write_lists(chosen: Choices, folder: Path) -> list[str]:
    """Write which images k-NN takes, where it does not take all.

    Returns:
        The files, of the bank and, if it has images of its own, the queries.
    """
    labelled = chosen.images.labelled
    if labelled is None:
        return []
    whole = len(labelled.bank), len(labelled.query or labelled.bank)
    if chosen.evaluated == whole:
        return []
    seed = chosen.wishes.seed
    parts = {'bank': some(labelled.bank, chosen.evaluated[0], seed)}
    if labelled.query is not None:
        parts['query'] = some(labelled.query, chosen.evaluated[1], seed)
    files = []
    for name, images in parts.items():
        text = io.StringIO(newline='')
        csv.writer(text).writerows([('path', 'label'), *images])
        files.append(str(folder.resolve() / f'knn_{name}.csv'))
        checkpoint_io.write_text(files[-1], text.getvalue())
    return files


def some(
    images: Sequence[tuple[str, str]], count: int, seed: int
) -> list[tuple[str, str]]:
    """Return images of all classes in their shares, drawn by a seed."""
    by_class: dict[str, list[tuple[str, str]]] = {}
    for image in images:
        by_class.setdefault(image[1], []).append(image)
    draw = random.Random(seed)
    # Each image gets its place within its class: a cut takes equal parts.
    placed = [
        ((place + draw.random()) / len(members), image)
        for members in by_class.values()
        for place, image in enumerate(draw.sample(members, len(members)))
    ]
    placed.sort()
    return sorted(image for _, image in placed[:count])
