"""Hit small training runs with faults, and see whether they go on exactly.

Every fault strikes forked processes that run what ``tools/train.py`` runs;
the run is then started again as a scheduler would, and compared with an
uninterrupted one: data order, losses, parameters, optimizer, key encoder,
queue, BatchNorm statistics and logged curves, bit by bit. Also times how long
a resume takes in the middle of long epochs.

    python benchmarks/soak.py                  # all, about ten minutes
    python benchmarks/soak.py --rounds 1 --json soak.json
"""

import argparse
import collections
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'faults')]
os.environ.setdefault('OMP_NUM_THREADS', '1')

import runs  # noqa: E402
import scenarios  # noqa: E402
from runs import Run  # noqa: E402

PLAIN: dict[str, Any] = {}
RICH = {
    'optim_wrapper.dtype': 'bfloat16',
    'optim_wrapper.accumulative_counts': 2,
    'model.m_schedule': 'cosine',
}
WORKERS = RICH | {'train_dataloader.num_workers': 2}
TWO = {'train_cfg.max_epochs': 6}

#: Name, rounds in a full soak, options, processes, scenario.
FAULTS: list[tuple[str, int, dict[str, Any], int, Any]] = [
    (
        'kill -9 at random moments',
        5,
        PLAIN,
        1,
        partial(scenarios.kills_at_random, kills=3),
    ),
    (
        'kill -9, bfloat16, accumulation, 2 workers',
        3,
        WORKERS,
        1,
        partial(scenarios.kills_at_random, kills=3),
    ),
    (
        'kill -9, 2 processes',
        2,
        TWO,
        2,
        partial(scenarios.kills_at_random, kills=2),
    ),
    *[
        (
            f'kill -9 in a save: {where}',
            1,
            PLAIN,
            1,
            partial(scenarios.kill_in_save, where=where),
        )
        for where in scenarios.PLACES
    ],
    ('SIGTERM', 2, RICH, 1, scenarios.stop_signal),
    (
        'SIGTERM to all, 2 workers',
        2,
        WORKERS,
        1,
        partial(scenarios.stop_signal, group=True),
    ),
    (
        'SIGUSR1 to 1 of 2 processes',
        2,
        TWO,
        2,
        partial(scenarios.stop_signal, name='SIGUSR1', ranks=[1]),
    ),
    ('SIGTERM while the data stall', 2, WORKERS, 1, scenarios.stalled_data),
    (
        'SIGTERM, data of 1 of 2 processes stall',
        2,
        TWO,
        2,
        partial(scenarios.stalled_data, ranks=(1,)),
    ),
    ('disk full', 3, PLAIN, 1, scenarios.full_disk),
    (
        'SIGTERM on a full disk',
        2,
        PLAIN,
        1,
        scenarios.stopped_on_a_full_disk,
    ),
    ('a second run in its work dir', 2, PLAIN, 1, scenarios.two_runs),
    (
        'unreadable folder of images',
        2,
        PLAIN,
        1,
        scenarios.unreadable_folder,
    ),
    ('newest checkpoint corrupt', 4, PLAIN, 1, scenarios.corrupt_newest),
    ('data worker killed', 2, WORKERS, 1, scenarios.dead_worker),
    ('one of 2 processes killed', 2, TWO, 2, scenarios.dead_rank),
    ('NaN in the images', 3, PLAIN, 1, scenarios.nan_injected),
]


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument(
        '--rounds', type=int, help='of every fault (default: as in the table)'
    )
    parser.add_argument('--only', default='', help='faults with this word')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', metavar='FILE', help='write the results')
    parser.add_argument(
        '--epochs',
        type=int,
        nargs='*',
        default=[10**3, 10**5, 10**6],
        metavar='N',
        help='lengths of the epochs that resuming is timed in',
    )
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix='mmmoco_soak_'))
    begun = time.time()
    try:
        rows = soak(folder, args)
        times = resume_times(folder, args.epochs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f'{time.time() - begun:.0f} s, load {os.getloadavg()[0]:.1f}')
    if args.json:
        Path(args.json).write_text(
            json.dumps({'faults': rows, 'resume': times}, indent=1) + '\n'
        )
    if any(row['exact'] < row['runs'] for row in rows):
        sys.exit(1)


def soak(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Let every fault strike, and print the table."""
    references: dict[str, Run] = {}
    rows = []
    print('| fault | strikes | runs | continued exactly | iterations lost |')
    print('| --- | --- | --- | --- | --- |')
    for number, (name, rounds, options, processes, strike) in enumerate(
        FAULTS
    ):
        if args.only not in name:
            continue
        key = repr((options, processes))
        if key not in references:
            place = folder / f'reference_{len(references)}'
            references[key] = Run(place, options, processes).finish()
        row = collections.Counter()
        lost: list[int] = []
        remarks: list[str] = []
        for turn in range(args.rounds or rounds):
            place = folder / f'{number}_{turn}'
            draws = random.Random(f'{args.seed} {number} {turn}')
            row['runs'] += 1
            try:
                found = strike(place, references[key], draws)
            except Exception:
                traceback.print_exc()
                continue
            row['strikes'] += found.hits
            row['exact'] += not found.differences
            lost += found.lost
            remarks.append(found.remarks)
            if found.differences:
                remarks.append(f'DIFFERS: {found.differences[:5]}')
            shutil.rmtree(place, ignore_errors=True)
        most = max(lost, default=0)
        shown = (
            f'{most} at most, {sum(lost) / max(len(lost), 1):.1f} on average'
        )
        remark = '; '.join(sorted({r for r in remarks if r}))
        print(
            f'| {name} | {row["strikes"]} | {row["runs"]} | {row["exact"]} '
            f'| {shown}{f" ({remark})" if remark else ""} |',
            flush=True,
        )
        rows.append(
            dict(
                row, fault=name, exact=row['exact'], lost=lost, remarks=remark
            )
        )
    print('A checkpoint is due every 3 iterations.')
    return rows


def resume_times(folder: Path, lengths: list[int]) -> list[dict[str, Any]]:
    """Time starts at and in the middle of epochs of several lengths."""
    rows = []
    for images in lengths:
        pid_file = folder / f'times_{images}.json'
        pid = os.fork()
        if pid == 0:
            with open(os.devnull, 'w') as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
                place = folder / f'epoch_{images}'
                place.mkdir()
                found = runs.resume_in_the_middle(place, images)
                pid_file.write_text(json.dumps(found))
            os._exit(0)
        os.waitpid(pid, 0)
        fresh, resumed = json.loads(pid_file.read_text())
        rows.append(dict(images=images, fresh=fresh, resumed=resumed))
    if rows:
        print(
            '\n| images per epoch | first batch, new run | resumed half-way |'
        )
        print('| --- | --- | --- |')
    for row in rows:
        print(
            f'| {row["images"]:,} | {row["fresh"]:.2f} s '
            f'| {row["resumed"]:.2f} s |'
        )
    return rows


if __name__ == '__main__':
    main()
