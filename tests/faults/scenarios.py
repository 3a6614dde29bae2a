"""One function for each fault: hit a run, start it again, compare.

Each takes a folder, the uninterrupted run and a source of random numbers, and
returns an :class:`Outcome`. The tests play each a few times, the soak often.
"""

import json
import os
import random
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image
from runs import Faults, Run, children_of, fill, small_disk

PACE = 0.03
#: Where a save can be hit.
PLACES = (
    'no byte written',
    '500 bytes written',
    '20000 bytes written',
    'before the rename',
    'after the rename',
    'before the pointer moves',
)


@dataclass
class Outcome:
    """What a fault did.

    Attributes:
        hits: How often it struck.
        lost: Iterations that were done again, for each hit.
        differences: From the uninterrupted run.
        remarks: What else is worth telling.
    """

    hits: int
    lost: list[int] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    remarks: str = ''


def like(reference, folder, **changes):
    """Return a new run with the options of another."""
    fresh = dict(pids=[], starts=0, work_dir=None)
    return replace(reference, folder=Path(folder), **(fresh | changes))


def compared(run, reference, hits, **more):
    return Outcome(hits, run.lost(), run.differences(reference), **more)


def kills_at_random(folder, reference, draws, kills=3):
    """SIGKILL after a random time, wherever the run is then."""
    run, hits = like(reference, folder), 0
    while hits < kills:
        run.start('--resume', faults=Faults(pace=PACE))
        # From the start-up on, and within the iterations.
        if draws.random() < 0.8 and not run.reach(
            draws.randrange(1, len(reference.lines()))
        ):
            run.wait()
            continue
        time.sleep(draws.random() * 0.2)
        run.kill()
        hits += run.wait() == [-signal.SIGKILL] * run.processes
        if run.done() > 8:  # Later kills would hit only the end.
            break
    run.finish('--resume')
    return compared(run, reference, hits)


def kill_in_save(folder, reference, draws, where=None, which=None):
    """SIGKILL at a given byte of a checkpoint, or around its renaming."""
    run = like(reference, folder)
    where = draws.choice(PLACES) if where is None else where
    which = which or draws.randrange(1, 4)
    run.start('--resume', faults=Faults(kill_in_save=(which, where)))
    assert run.wait() == [-signal.SIGKILL], run.log()[-2000:]
    unfinished = len(list(run.work_dir.glob('.*.tmp')))
    assert unfinished == (where != 'after the rename'), where
    run.finish('--resume')
    assert not list(run.work_dir.glob('.*.tmp'))
    return compared(run, reference, 1)


def stop_signal(
    folder, reference, draws, name='SIGTERM', group=False, ranks=None
):
    """What a scheduler sends, to one process or to all with their workers."""
    run = like(reference, folder)
    slowest = 0.0
    for begin in (1, 6):
        run.start(faults=Faults(pace=PACE))
        assert run.reach(begin + draws.randrange(3)), run.log()[-2000:]
        sent = time.monotonic()
        run.kill(signal.Signals[name], group=group, ranks=ranks)
        codes = run.wait()
        slowest = max(slowest, time.monotonic() - sent)
        assert codes == [0] * run.processes, run.log()[-4000:]
        assert run.marker().is_file()
    run.finish()  # The same command, without --resume.
    assert not run.marker().exists()
    remark = f'exit 0 after at most {slowest:.1f} s'
    return compared(run, reference, 2, remarks=remark)


def stalled_data(folder, reference, draws, ranks=(0,)):
    """SIGTERM while some processes wait for their data."""
    run = like(reference, folder)
    gate = Path(folder) / 'gate'
    run.start(faults=Faults(pace=PACE, stall=gate))
    assert run.reach(4 + draws.randrange(3)), run.log()[-2000:]
    for rank in ranks:
        gate.with_suffix(f'.{rank}').touch()
    seen = -1
    while seen != run.done():
        seen = run.done()
        time.sleep(1)
    sent = time.monotonic()
    run.kill(signal.SIGTERM, group=False)
    codes = run.wait()
    seconds = time.monotonic() - sent
    assert codes == [0] * run.processes, run.log()[-4000:]
    facts = json.loads(run.marker().read_text())
    saved = int(Path(facts['checkpoint']).stem[5:])
    assert saved == (seen if run.processes == 1 else seen // 3 * 3), facts
    for rank in ranks:
        gate.with_suffix(f'.{rank}').unlink()
    run.finish()
    assert not run.marker().exists()
    remark = f'exit 0 after at most {seconds:.0f} s'
    return compared(run, reference, 1, remarks=remark)


def stopped_on_a_full_disk(folder, reference, draws):
    """SIGTERM while nothing can be written any more."""
    with small_disk() as disk:
        if disk is None:
            return Outcome(0, remarks='may not mount a disk here')
        run = like(reference, folder, work_dir=disk / 'run')
        run.start(faults=Faults(pace=PACE))
        assert run.reach(4 + draws.randrange(2)), run.log()[-2000:]
        fill(disk / 'ballast')
        run.kill(signal.SIGTERM)
        assert run.wait() == [0], run.log()[-4000:]
        facts = json.loads(run.marker().read_text())
        assert facts['checkpoint'] == f'{run.work_dir}/iter_3.pth', facts
        (disk / 'ballast').unlink()
        run.finish()
        assert not list(run.work_dir.glob('.PREEMPTED*'))
        differences = run.differences(reference, curves=False)
        return Outcome(1, run.lost(), differences, 'exit 0, with its marker')


def unreadable_folder(folder, reference, draws):
    """A part of the images that may not be read: an error, not a part."""
    images = Path(folder) / 'images'
    for number in range(48):
        place = images / f'part {number % 3}'
        place.mkdir(parents=True, exist_ok=True)
        pixels = Image.new('RGB', (20, 20), (5 * number, number, 99))
        pixels.save(place / f'{number}.png')
    options = reference.options
    whole = Run(Path(folder) / 'whole', options, images=images).finish()
    run = like(whole, Path(folder) / 'run')
    part = draws.choice(sorted(p for p in images.iterdir() if p.is_dir()))
    part.chmod(0)
    run.start(faults=Faults(plain_user=True))
    assert run.wait() == [2], run.log()[-2000:]
    errors = [x for x in run.log().splitlines() if ': error: ' in x]
    assert len(errors) == 1 and str(part) in errors[0], errors
    part.chmod(0o755)
    run.finish(faults=Faults(plain_user=True))
    return compared(run, whole, 1, remarks='exit 2, named')


def two_runs(folder, reference, draws):
    """A second run in the work dir of a running one."""
    run = like(reference, Path(folder) / 'first')
    other = like(reference, Path(folder) / 'second', work_dir=run.work_dir)
    run.start(faults=Faults(pace=5 * PACE))
    assert run.reach(1 + draws.randrange(3)), run.log()[-2000:]
    codes = [other.start(*a).wait() for a in ([], ['--resume'])]
    assert codes == [[2], [2]], other.log()[-3000:]
    assert run.wait() == [0], run.log()[-3000:]
    return compared(run, reference, 2, remarks='the second is refused')


def full_disk(folder, reference, draws, mounted=True):
    """A disk that is full for some iterations, two saves among them."""
    begin = draws.randrange(1, 3)
    if not mounted:
        return _full_disk(folder, reference, begin, None)
    with small_disk() as disk:
        return _full_disk(folder, reference, begin, disk)


def _full_disk(folder, reference, begin, disk):
    work_dir = disk / 'run' if disk else None
    ballast = disk / 'ballast' if disk else None
    run = like(reference, folder, work_dir=work_dir)
    faults = Faults(full=(begin, begin + 6), ballast=ballast)
    run.finish(faults=faults)
    log = run.log()
    failed = log.count('THE CHECKPOINT WAS NOT SAVED')
    assert failed >= 1, log[-4000:]
    assert run.checkpoints()[0].name == 'iter_12.pth'
    name = f'a tmpfs of {disk_size(disk)}' if disk else 'RLIMIT_FSIZE'
    # The curves of the time without a disk are lost.
    differences = run.differences(reference, curves=False)
    return Outcome(failed, [0], differences, f'{name}; saves lost: {failed}')


def disk_size(disk):
    facts = os.statvfs(disk)
    return f'{facts.f_blocks * facts.f_frsize >> 20} MB'


def corrupt_newest(folder, reference, draws, damage=None):
    """A newest checkpoint that cannot be read any more."""
    run = like(reference, folder)
    run.start(faults=Faults(pace=PACE))
    assert run.reach(8)
    run.kill()
    run.wait()
    newest, older = run.checkpoints()[:2]
    content = newest.read_bytes()
    half = len(content) // 2
    damages = {
        'empty': b'',
        'cut off': content[:half],
        'a bit': content[:half]
        + bytes([content[half] ^ 1])
        + content[half + 1 :],
        'zeros': bytes(len(content)),
    }
    newest.write_bytes(damages[damage or draws.choice(sorted(damages))])
    run.finish('--resume')
    log = run.log()
    assert f'Skipped on resume: {newest}' in log
    assert f'Load checkpoint from {older}' in log
    return compared(run, reference, 1, remarks='the log names it')


def dead_worker(folder, reference, draws):
    """SIGKILL to a data worker; what starts jobs starts this one again."""
    run = like(reference, folder)
    run.start(faults=Faults(pace=PACE))
    assert run.reach(1 + draws.randrange(8))
    workers = children_of(run.pids[0])
    os.kill(draws.choice(workers), signal.SIGKILL)
    codes = run.wait()
    assert codes[0] not in (0, -signal.SIGKILL), codes
    run.finish(TORCHELASTIC_RESTART_COUNT='1')
    return compared(run, reference, 1, remarks=f'exit code {codes[0]}')


def dead_rank(folder, reference, draws):
    """SIGKILL to one rank; as torchrun does, all are started again."""
    run = like(reference, folder)
    run.start(faults=Faults(pace=PACE))
    assert run.reach(1 + draws.randrange(8))
    victim = draws.randrange(run.processes)
    run.kill(ranks=[victim])
    time.sleep(0.2)
    run.kill(signal.SIGKILL)
    run.wait()
    run.finish(TORCHELASTIC_RESTART_COUNT='1')
    return compared(run, reference, 1)


def nan_injected(folder, reference, draws):
    """NaN images: as if those iterations had not been."""
    at = tuple(sorted(draws.sample(range(12), 2)))
    absent = like(reference, Path(folder) / 'absent')
    absent.finish(faults=Faults(absent=at))
    run = like(reference, Path(folder) / 'nan')
    run.finish(faults=Faults(nan_at=at))
    log = run.log()
    assert log.count('Skipped an optimizer step') == len(at), log[-3000:]
    ours, theirs = run.states(), absent.states()
    differences = [
        name for name in ours if not bool((ours[name] == theirs[name]).all())
    ]
    seen = [
        {i: v for i, v in r.seen().items() if i not in at}
        for r in (run, absent)
    ]
    if seen[0] != seen[1]:
        differences.append('losses or data order')
    remark = 'equal to a run without those steps'
    return Outcome(len(at), [1] * len(at), differences, remark)


def source(seed):
    return random.Random(seed)
