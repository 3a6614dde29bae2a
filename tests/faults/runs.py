"""Small runs in processes of their own, for faults to hit.

A process is forked, so that it starts without the imports; in it runs what
``tools/train.py`` runs. Every iteration leaves a line with the images it saw
and the bits of its loss, the end leaves all states: two runs are equal if
these are.
"""

import builtins
import contextlib
import ctypes
import io
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook

import mmmoco.models  # noqa: F401  Here once, instead of in every child.
from mmmoco.apis import cli
from mmmoco.apis.training import jobs, train
from mmmoco.apis.training.runner import build_runner, init_processes
from mmmoco.datasets.addressed import AddressedDataset
from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.checkpoint_io import writing
from mmmoco.engine.preemption import MARKER
from mmmoco.registry import DATASETS, HOOKS
from mmmoco.visualization.scalars import merge_scalars, read_scalars

#: The demo, cut down: a tenth of a second for an epoch of four batches.
SMALL = {
    'train_dataloader.batch_size': 16,
    'train_dataloader.dataset.num_scenes': 64,
    'model.dictionary.size': 64,
    'model.backbone.channels': '(4,8)',
    'model.backbone.strides': '(1,2)',
    'model.backbone.out_indices': '(1,)',
    'model.neck.in_channels': 8,
    'model.neck.hid_channels': 8,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.by_epoch': False,
    'default_hooks.checkpoint.interval': 3,
    'default_hooks.checkpoint.max_keep_ckpts': 2,
    'knn.bank.dataset.num_scenes': 40,
    'knn.query.dataset.num_scenes': 20,
    'train_cfg.max_epochs': 3,
    'schedule': 'keep',  # That of the demo, cut off.
}
LOGGED = ('loss', 'lr', 'm', 'pos_sim', 'neg_sim', 'top1', 'grad_norm')


@dataclass
class Faults:
    """What happens to a run from inside; iterations count from 0.

    Attributes:
        nan_at: The images of these iterations become NaN.
        absent: These iterations do nothing at all.
        full: The disk is full from the first to before the second.
        ballast: File that fills the disk; None: a limit of the file size.
        kill_in_save: Which save is hit, and when: ``'N bytes written'`` (or
            no), ``'before the rename'``, ``'after the rename'`` or
            ``'before the pointer moves'``.
        signal_at: An iteration, the name of the signal that every process
            then sends itself, and for one process its rank.
        pace: Seconds that every iteration takes longer.
        stall: A rank gets no batch while this file, with the rank as its
            ending, exists.
        bug_at: In this iteration a hook of ours has a fault.
        unwritable: What opening a side file for writing fails with; the log
            meets a disk that is full.
        plain_user: The modes of files count, also for root.
    """

    nan_at: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    full: tuple[int, int] | None = None
    ballast: Path | None = None
    kill_in_save: tuple[int, str] | None = None
    signal_at: tuple[int, str] | tuple[int, str, int] | None = None
    pace: float = 0.0
    stall: Path | None = None
    bug_at: int | None = None
    unwritable: int | None = None
    plain_user: bool = False


@dataclass
class Run:
    """A run that can be started again and again, as a scheduler does.

    Attributes:
        folder: For its work dir and its records.
        options: Replace those of the config.
        processes: How many.
        work_dir: Elsewhere, for instance on a disk that can be filled.
        knn: Evaluate at the end.
        iterations: Use an iteration-based loop.
        images: Folder of images to train on, instead of digits.
    """

    folder: Path
    options: dict = field(default_factory=dict)
    processes: int = 1
    work_dir: Path | None = None
    knn: bool = False
    iterations: bool = False
    images: Path | None = None
    pids: list[int] = field(default_factory=list)
    starts: int = 0

    def __post_init__(self):
        self.folder = Path(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.work_dir = Path(self.work_dir or self.folder / 'run')

    # Starting and ending

    def start(self, *arguments, faults=None, **env):
        """Fork the processes; they become leaders of their groups."""
        self.starts += 1
        if self.processes > 1:
            env['MASTER_PORT'] = str(free_port())
        sys.stdout.flush()
        self.pids = []
        for rank in range(self.processes):
            pid = os.fork()
            if pid == 0:
                self._child(rank, [*map(str, arguments)], faults, env)
            self.pids.append(pid)
        return self

    def _child(self, rank, arguments, faults, env):
        code = 1
        try:
            os.setpgid(0, 0)
            die_with_parent()
            np.random.seed()  # As in a process of its own.
            torch.set_num_threads(1)
            log = os.open(self.log_file(), os.O_WRONLY | os.O_CREAT | 0o2000)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout = os.fdopen(1, 'w', buffering=1, closefd=False)
            sys.stderr = os.fdopen(2, 'w', buffering=1, closefd=False)
            os.environ.update(env)
            # Laying the text out for every checkpoint takes most of the time.
            Config.pretty_text = property(lambda cfg: repr(cfg.to_dict()))
            if self.processes > 1:
                os.environ.update(
                    RANK=str(rank),
                    LOCAL_RANK=str(rank),
                    WORLD_SIZE=str(self.processes),
                    LOCAL_WORLD_SIZE=str(self.processes),
                    MASTER_ADDR='127.0.0.1',
                )
            if faults and faults.plain_user:
                drop_capabilities()
            if faults and faults.unwritable:
                forbid_side_files(faults.unwritable)
            cli.run(
                lambda: self.train(arguments, faults or Faults()),
                'train.py',
                debug=False,
            )
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            if code == 0 and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            os._exit(code)

    def train(self, arguments, faults):
        """Do what tools/train.py does, with the hooks below."""
        options = [
            f'{name}={value}'
            for name, value in {**SMALL, **self.options}.items()
        ]
        args, _ = cli.arguments(
            jobs.train,
            [
                'demo/mocov2_digits',
                '--work-dir',
                str(self.work_dir),
                *arguments,
                '--cfg-options',
                *options,
            ],
        )
        cfg = train.prepare(**args)
        if self.iterations:
            use_iterations(cfg)
        if self.images:
            use_images(cfg, str(self.images))
        hooks = [h for h in cfg.custom_hooks if h.type != 'KNNHook']
        if self.knn:
            hooks.append(dict(type='KNNHook', interval=1000))
        hooks.append(dict(type='FaultHook', faults=vars(faults)))
        hooks.append(dict(type='RecordHook', folder=str(self.folder)))
        cfg.custom_hooks = hooks
        cfg.experiment_name = f'start_{time.time_ns()}'
        init_processes(cfg, 'pytorch' if self.processes > 1 else 'none')
        build_runner(cfg).train()

    def wait(self, timeout=120.0):
        """Return the exit codes, −9 for SIGKILL."""
        deadline, codes = time.monotonic() + timeout, {}
        while len(codes) < len(self.pids):
            for pid in self.pids:
                if pid not in codes:
                    done, status = os.waitpid(pid, os.WNOHANG)
                    if done:
                        codes[pid] = os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f'{self.folder}: {self.log()[-3000:]}')
            time.sleep(0.01)
        return [codes[pid] for pid in self.pids]

    def kill(self, signum=signal.SIGKILL, group=True, ranks=None):
        """Signal the processes, with their workers or alone."""
        for rank in range(self.processes) if ranks is None else ranks:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pids[rank], signum)

    def finish(self, *arguments, **options):
        """Start, and expect that it ends well."""
        codes = self.start(*arguments, **options).wait()
        assert codes == [0] * self.processes, self.log()[-6000:]
        return self

    def reach(self, iterations, timeout=60.0):
        """Wait until the newest start has done so many; False if it ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.done() >= iterations:
                return True
            # Looks, but leaves the exit code for wait().
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self.pids[0], flags) is not None:
                return False
            time.sleep(0.002)
        raise TimeoutError(self.log()[-3000:])

    # What is left of it

    def log_file(self):
        return self.folder / 'output.txt'

    def log(self):
        return self.log_file().read_text(errors='replace')

    def lines(self, rank=0):
        """Every iteration that was done, in the order of time."""
        file = self.folder / f'seen_{rank}.jsonl'
        text = file.read_text() if file.is_file() else ''
        whole = text[: text.rfind('\n') + 1]
        return [json.loads(line) for line in whole.splitlines()]

    def done(self):
        """The newest iteration, from 1."""
        lines = self.lines()
        return lines[-1]['iter'] + 1 if lines else 0

    def lost(self):
        """How many iterations each start but the first did again."""
        losses, last, start = [], -1, None
        for line in self.lines():
            if start is not None and line['pid'] != start:
                losses.append(max(last + 1 - line['iter'], 0))
            start, last = line['pid'], max(last, line['iter'])
        return losses

    def seen(self, rank=0):
        """Images and loss of each iteration.

        Raises:
            AssertionError: If one was done again and differs.
        """
        found = {}
        for line in self.lines(rank):
            fact = line['ids'], line['loss']
            assert found.setdefault(line['iter'], fact) == fact, line
        return found

    def states(self, rank=0):
        """Every tensor of the end, by name."""
        return torch.load(self.folder / f'final_{rank}.pth')

    def scalars(self):
        """The logged curves, stitched together from all starts."""
        files = sorted(self.work_dir.glob('*/vis_data/scalars.json'))
        merged = merge_scalars([read_scalars(file) for file in files])
        return {name: merged.get(name) for name in LOGGED}

    def marker(self):
        return self.work_dir / MARKER

    def checkpoints(self):
        """The newest first."""
        return sorted(
            self.work_dir.glob('iter_*.pth'),
            key=lambda path: int(path.stem[5:]),
            reverse=True,
        )

    def differences(self, other, curves=True):
        """Return what differs from another run, bit by bit."""
        found = []
        for rank in range(self.processes):
            if self.seen(rank) != other.seen(rank):
                found.append(f'data order or losses of rank {rank}')
            ours, theirs = self.states(rank), other.states(rank)
            names = ours.keys() | theirs.keys()
            for name in sorted(names):
                # Those of other ranks than the first are never used.
                if rank and ('running_' in name or 'num_batches' in name):
                    continue
                if not (
                    name in ours
                    and name in theirs
                    and torch.equal(ours[name], theirs[name])
                ):
                    found.append(f'{name} of rank {rank}')
        if curves and self.scalars() != other.scalars():
            found.append('logged curves')
        return found


def use_iterations(cfg):
    """Train 12 iterations; the sampler's setting is left to the runner."""
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=12)
    cfg.log_processor.by_epoch = False
    cfg.param_scheduler = [
        dict(type='CosineAnnealingLR', T_max=12, by_epoch=False)
    ]


def use_images(cfg, folder):
    """Train on files, with views made by the data workers."""
    crop = dict(type='FastRandomResizedCrop', size=16)
    cfg.train_dataloader.dataset = dict(
        type='ImageFolderDataset',
        data_root=folder,
        pipeline=[
            dict(type='LoadRGB'),
            dict(type='Views', views=dict(view_q=[crop], view_k=[crop])),
        ],
    )
    cfg.model.data_preprocessor = dict(
        type='ViewAugmentor', mean=(127.0,) * 3, std=(64.0,) * 3
    )
    cfg.model.backbone.in_channels = 3


#: What a training writes beside its checkpoints and its log.
# The second also while it is unfinished: a config is replaced as a whole.
SIDE_FILES = re.compile(
    r'(scalars\.json|results\.jsonl|config\.py|bad_files\.txt)|'
    r'\.?mocov2_digits\.py(~.*)?'
)


def forbid_side_files(number):
    """Let every attempt to write one fail with an errno."""
    real, low = io.open, os.open

    def refuse(file, writes):
        if not writes or isinstance(file, int):
            return
        if SIDE_FILES.fullmatch(os.path.basename(os.fsdecode(file))):
            raise OSError(number, os.strerror(number), str(file))

    def guarded(file, mode='r', *args, **kwargs):
        refuse(file, mode[0] in 'wa')
        return real(file, mode, *args, **kwargs)

    def guarded_low(file, flags, *args, **kwargs):
        refuse(file, flags & (os.O_WRONLY | os.O_RDWR))
        return low(file, flags, *args, **kwargs)

    io.open = builtins.open = guarded
    os.open = guarded_low


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def die_with_parent():
    """Leave no process behind when the tests are stopped."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def drop_capabilities():
    """Give up what root may do although modes forbid it."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None).capset(header, nothing):
        raise OSError('the capabilities could not be dropped')


def children_of(pid):
    """Return the data workers of a process."""
    text = Path(f'/proc/{pid}/task/{pid}/children').read_text()
    return [int(child) for child in text.split()]


@HOOKS.register_module()
class RecordHook(Hook):
    """Write down what each iteration saw and computed, and the end."""

    # Before the checkpoints: an iteration that is saved has left its line.
    priority = 85

    def __init__(self, folder):
        self.folder = Path(folder)

    def before_train(self, runner):
        name = f'seen_{get_rank()}.jsonl'
        self.file = open(self.folder / name, 'a', buffering=1)  # noqa: SIM115

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        line = {
            'iter': runner.iter,
            'pid': os.getpid(),
            'ids': data_batch['ids'].tolist(),
            'loss': float(outputs['loss'].detach()).hex(),
        }
        self.file.write(json.dumps(line) + '\n')

    def after_train(self, runner):
        flat = dict(bare_model(runner).state_dict())
        state = runner.optim_wrapper.optimizer.state_dict()
        for index, entry in state['state'].items():
            for name, value in entry.items():
                flat[f'optimizer.{index}.{name}'] = torch.as_tensor(value)
        for index, group in enumerate(state['param_groups']):
            flat[f'lr.{index}'] = torch.tensor(group['lr'])
        path = self.folder / f'final_{get_rank()}.pth'
        torch.save({k: v.clone() for k, v in flat.items()}, path)


@HOOKS.register_module()
class FaultHook(Hook):
    """Do to a run what :class:`Faults` says."""

    priority = 'HIGHEST'

    def __init__(self, faults):
        self.faults = Faults(**faults)
        self.saves = 0

    def before_train(self, runner):
        self.model = bare_model(runner)
        if self.faults.nan_at:
            for part in (self.model.backbone, self.model.key_encoder):
                part.register_forward_pre_hook(
                    lambda _, inputs: (self._spoiled(runner, inputs[0]),)
                )
        if self.faults.absent:
            step = runner.model.train_step

            def train_step(data, optim_wrapper):
                if runner.iter not in self.faults.absent:
                    return step(data, optim_wrapper)
                optim_wrapper.stepped = False
                optim_wrapper._inner_count += 1
                return {'loss': torch.zeros(())}

            runner.model.train_step = train_step
        if self.faults.kill_in_save:
            self._arm(*self.faults.kill_in_save)
        if self.faults.stall:
            self._stall(runner.train_dataloader)
        if self.faults.unwritable:
            for handler in runner.logger.handlers:
                if hasattr(handler, 'baseFilename'):
                    handler.stream = open('/dev/full', 'w')  # noqa: SIM115

    def _stall(self, loader):
        collate = loader.collate_fn
        file = self.faults.stall.with_suffix(f'.{get_rank()}')

        def slow(samples):
            while file.exists():
                time.sleep(0.05)
            return collate(samples)

        loader.collate_fn = slow

    def _spoiled(self, runner, x):
        return x * float('nan') if runner.iter in self.faults.nan_at else x

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.faults.pace:
            time.sleep(self.faults.pace)
        if runner.iter == self.faults.bug_at:
            {}['a key that nobody wrote']
        if self.faults.signal_at:
            iteration, name, *rank = self.faults.signal_at
            if runner.iter == iteration and rank in ([], [get_rank()]):
                os.kill(os.getpid(), signal.Signals[name])
        if self.faults.full is None:
            return
        if runner.iter == self.faults.full[0]:
            fill(self.faults.ballast)
        if runner.iter == self.faults.full[1]:
            empty(self.faults.ballast)

    def _arm(self, which, where):
        replace = writing.replace
        hook = self
        limit = 0 if where.startswith('no') else 1 << 40
        if where[0].isdigit():
            limit = int(where.split()[0])

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        def doomed(path, content):
            # Other files, such as the block kept for the marker, are none.
            save = Path(path).suffix == '.pth'
            pointer = Path(path).name == 'last_checkpoint'
            hook.saves += save
            struck = pointer if 'pointer' in where else save
            if hook.saves != which or not struck:
                return replace(path, content)
            if where == 'after the rename':
                replace(path, content)
                die()

            def cut(file):
                size = 0

                class Cut:
                    def __getattr__(self, name):
                        return getattr(file, name)

                    def write(self, data):
                        nonlocal size
                        if size + len(data) > limit:
                            file.write(data[: max(limit - size, 0)])
                            file.flush()
                            die()
                        size += len(data)
                        return file.write(data)

                content(Cut())
                file.flush()
                die()

            return replace(path, cut)

        writing.replace = doomed


def fill(ballast):
    """Leave no byte of the disk, or allow no file to grow."""
    if ballast is None:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
        return
    with open(ballast, 'wb', buffering=0) as file:
        for size in (1 << 16, 1 << 9, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def empty(ballast):
    if ballast is None:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    else:
        Path(ballast).unlink()


@contextlib.contextmanager
def small_disk(size='4m'):
    """A disk of its own, if the machine allows; else None."""
    folder = tempfile.mkdtemp(prefix='mmmoco_disk_')
    command = f'mount -t tmpfs -o size={size} tmpfs {folder} 2>/dev/null'
    mounted = os.system(command) == 0
    try:
        yield Path(folder) if mounted else None
    finally:
        if mounted:
            os.system(f'umount -l {folder}')
        os.rmdir(folder)


@DATASETS.register_module()
class BlankImages(AddressedDataset):
    """As many grey images as one likes, without a cost."""

    metainfo = {'classes': ()}

    def __init__(self, num_images, **kwargs):
        super().__init__()
        self.num_images = num_images

    def __len__(self):
        return self.num_images

    def sample(self, index):
        image = torch.full((1, 32, 32), index % 251, dtype=torch.uint8)
        return {'inputs': {'image': image}, 'ids': index, 'labels': 0}


def resume_in_the_middle(folder, images):
    """Return the seconds from the checkpoint to the first iteration.

    Of a run that stopped in the middle of an epoch of so many images.
    """
    base = ['demo/mocov2_digits', '--work-dir', str(folder)]
    options = dict(SMALL)
    options['train_cfg.max_epochs'] = 1
    options.pop('train_dataloader.dataset.num_scenes')
    seconds = None

    class Clock(Hook):
        priority = 'HIGHEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            nonlocal seconds
            seconds = time.perf_counter() - begun
            assert not resumed or runner.iter == images // 32
            if not resumed:
                runner.save_checkpoint(
                    str(folder), 'iter_1.pth', by_epoch=False
                )
            raise StopIteration

    for resumed in (False, True):
        args, _ = cli.arguments(
            jobs.train,
            [*base, '--cfg-options']
            + [f'{name}={value}' for name, value in options.items()],
        )
        cfg = train.prepare(**args)
        cfg.train_dataloader.dataset = dict(
            type='BlankImages', num_images=images
        )
        cfg.custom_hooks = [h for h in cfg.custom_hooks if h.type != 'KNNHook']
        cfg.experiment_name = f'middle_{time.time_ns()}'
        if resumed:
            path = str(folder / 'iter_1.pth')
            checkpoint = checkpoint_io.read(path)
            checkpoint['meta'].update(epoch=0, iter=images // 32)
            checkpoint['optimizer']['state'] = {}
            checkpoint_io.write(checkpoint, path)
            cfg.resume, cfg.load_from = True, path
        runner = build_runner(cfg)
        runner.register_hook(Clock())
        begun = time.perf_counter()
        with contextlib.suppress(StopIteration):
            runner.train()
        if not resumed:
            fresh = seconds
    return fresh, seconds
