"""Lists of labelled images: the job behind ``tools/make_label_subset.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log

from mmmoco.datasets import ImageFolderDataset
from mmmoco.engine.checkpoint_io import write_text
from mmmoco.functional import generator

from mmmoco.apis import cli


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/make_label_subset.py``."""
    result = argparse.ArgumentParser(
        prog='make_label_subset.py',
        description='Write a list "path label" of a part of a folder of '
        'class folders; equally large in every class, the same for the same '
        'seed.',
        epilog='Examples: python tools/make_label_subset.py '
        'data/imagenet/train --percent 1 --out data/imagenet/train_1pct.txt; '
        'python tools/make_label_subset.py data/eurosat --percent 80 '
        '--seed 42 --out data/eurosat/train.txt --rest data/eurosat/test.txt',
    )
    result.add_argument('folder', help='folder of class folders')
    result.add_argument('--percent', type=float, required=True)
    result.add_argument('--seed', type=int, default=0)
    result.add_argument('--out', required=True, metavar='FILE')
    result.add_argument(
        '--rest', metavar='FILE', help='list of the images that were left'
    )
    cli.add_debug(result)
    return result


def split_by_class(
    labels: Sequence[int], percent: float, seed: int
) -> tuple[list[int], list[int]]:
    """Return positions of a stratified part, and of the rest, in order.

    Args:
        labels: Class of every image.
        percent: Share of every class; at least one image of each.
        seed: Of the draw.

    Raises:
        ValueError: If the share is not between 0 and 100.
    """
    if not 0 < percent < 100:
        raise ValueError(f'--percent {percent:g}: use more than 0, below 100.')
    known = torch.tensor(labels)
    chosen = []
    for label in known.unique().tolist():
        there = (known == label).nonzero()[:, 0]
        draws = generator(seed, label, 'label subset')
        order = torch.randperm(len(there), generator=draws)
        count = max(1, round(len(there) * percent / 100))
        chosen += there[order[:count]].tolist()
    taken = set(chosen)
    rest = [i for i in range(len(known)) if i not in taken]
    return sorted(chosen), rest


def make(args: argparse.Namespace) -> None:
    """Write the lists as the command line says."""
    dataset = ImageFolderDataset(args.folder, with_labels=True)
    labels = dataset.labels or []
    parts = split_by_class(labels, args.percent, args.seed)
    for file, part in zip((args.out, args.rest), parts, strict=True):
        if file is None:
            continue
        lines = [
            f'{Path(dataset.paths[i]).relative_to(args.folder)} {labels[i]}\n'
            for i in part
        ]
        write_text(file, ''.join(lines))
        print_log(
            f'{file}: {len(part)} of {len(labels)} images, '
            f'{len(dataset.classes)} classes',
            logger='current',
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/make_label_subset.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: make(args), 'make_label_subset.py', args.debug)
