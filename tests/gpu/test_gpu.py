"""What only a GPU can show.

Where the CPU can do the same, the body of a test runs there too, so that it
is known to work before it meets a GPU.
"""

import copy
import importlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from PIL import Image

from mmmoco.apis import cli, load_config
from mmmoco.apis.training.jobs import train
from mmmoco.apis.training.runner import build_runner
from mmmoco.apis.training.train import prepare
from mmmoco.engine.bare_model import bare_model
from mmmoco.functional import Candidates, info_nce, nearest
from mmmoco.models.norms import SplitBN
from mmmoco.registry import MODELS
from tests.conftest import since_torch
from tests.golden import ours
from tests.golden import test_mmc as mmc
from tests.models import test_distillation as distillation

CUDA = pytest.param(
    'cuda',
    marks=pytest.mark.gpu,
)
#: Older ones compute in it on a GPU only.
FLOAT16 = pytest.param(torch.float16, marks=since_torch('2.3'))
ANYWHERE = pytest.mark.parametrize('device', ['cpu', CUDA])
SLOWLY_ANYWHERE = pytest.mark.parametrize(
    'device', [pytest.param('cpu', marks=pytest.mark.slow), CUDA]
)
ON_A_GPU = pytest.mark.parametrize('device', [CUDA])
LOW = pytest.mark.parametrize('dtype', [torch.bfloat16, FLOAT16], ids=str)


# ------------------------------------------------------------------- views


def views_of(name, device, dtype=None):
    cfg = load_config(name, {'device_views': True})
    made = MODELS.build(cfg.model.data_preprocessor).to(device)
    # Noise differs between devices; everything else must not.
    for view, (source, ops) in made.views.items():
        kept = [op for op in ops if 'Noise' not in type(op).__name__]
        made.views[view] = source, kept
    draws = torch.Generator().manual_seed(0)
    names = {source for source, _ in made.views.values()}
    shape = 8, made.mean.shape[1], 32, 32
    inputs = {
        name: torch.randint(0, 256, shape, generator=draws).byte()
        for name in sorted(names)
    }
    made.set_address(seed=0, step=1, rank=0)
    with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
        batch = made({'inputs': inputs, 'ids': torch.arange(8)}, True)
    return {name: x.cpu() for name, x in batch['inputs'].items()}, made.std


@ANYWHERE
@LOW
@pytest.mark.parametrize(
    'name',
    [
        'mocov2_r50_8xb32',
        'mocov3_vit-s_8xb128_300e',
        'mocov2_r50_8xb32_satellite',
        'mmc_vit-b_4xb64_400e',
    ],
)
def test_views_are_those_of_the_cpu_in_float32(name, dtype, device):
    expected, std = views_of(name, 'cpu')
    found, _ = views_of(name, device, dtype)
    assert found.keys() == expected.keys()
    bound = 0.05 / float(std.min())  # grey levels
    masks = {n: x for n, x in expected.items() if n.endswith('_mask')}
    for view, x in expected.items():
        if view in masks:
            assert torch.equal(found[view], x)  # the same rectangles
            continue
        same = torch.ones_like(x, dtype=torch.bool)
        if view.endswith('_corrupted'):
            same = ~masks[view.replace('_corrupted', '_mask')].expand_as(x)
        # Pixels on the edge of a step (solarised, whole hues) may fall.
        far = ((found[view] - x).abs() > bound) & same
        assert far.float().mean() < 1e-3, view


# ------------------------------------------------------------------- a run


class Watch(Hook):
    """Checks every step of a run, before and after the hooks that write."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.stepped = []

    def after_train_iter(self, runner, *_, **__):
        model = bare_model(runner)
        self.stepped.append(runner.optim_wrapper.stepped)
        m = model.momentum_at((runner.iter + 1) / runner.max_iters)
        queries = model.query_modules()
        self.expected = [
            torch.lerp(key.double(), query.double(), 1 - m)
            for name, part in model.key_encoder.named_children()
            for key, query in zip(
                part.parameters(), queries[name].parameters(), strict=True
            )
        ]
        runner.register_hook(Moved(self), priority='LOWEST')


class Moved(Hook):
    def __init__(self, watch):
        self.watch = watch

    def after_train_iter(self, runner, *_, **__):
        keys = list(bare_model(runner).key_encoder.parameters())
        for key, goal in zip(keys, self.watch.expected, strict=True):
            torch.testing.assert_close(
                key.double(), goal, rtol=1e-5, atol=1e-6
            )
        runner._hooks.remove(self)


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    draws = np.random.default_rng(0)
    for i in range(8):
        pixels = draws.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    return folder


def run_of(folder, work_dir, *options, iters=2, flags=('--fast',)):
    arguments = [
        'mocov2_r50_8xb32',
        *flags,
        f'--max-iters={iters}',
        '--seed=0',
        f'--work-dir={work_dir}',
        '--cfg-options',
        f'train_dataloader.dataset.data_root={folder}',
        'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0',
        'model.backbone.depth=18',
        'model.neck.in_channels=512',
        'model.dictionary.size=64',
        'device_views=True',
        *options,
    ]
    cfg = prepare(**cli.arguments(train, arguments)[0])
    cfg.log_level = 'ERROR'
    return build_runner(cfg)


@pytest.mark.parametrize(
    'device', [pytest.param('cpu', marks=pytest.mark.slow), CUDA]
)
def test_fast_with_device_views_steps(device, photographs, tmp_path):
    runner = run_of(photographs, tmp_path / 'run')
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    model = bare_model(runner)
    assert next(model.parameters()).device.type == device
    assert watch.stepped == [True, True]
    assert int(model.dictionary.ptr) == 8


@ON_A_GPU
def test_fast_and_deterministic_are_not_at_odds(device, photographs, tmp_path):
    """Two runs of a seed end with the same bits."""
    ends = []
    for name in 'ab':
        runner = run_of(
            photographs,
            tmp_path / name,
            'randomness.deterministic=True',
            'env_cfg.cudnn_benchmark=False',
        )
        runner.train()
        ends.append(copy.deepcopy(bare_model(runner).state_dict()))
        torch.use_deterministic_algorithms(False)
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


# ------------------------------------------------------------- single steps


def moved(model, device):
    model = model.to(device)
    model.data_preprocessor.to(device)
    return model


def queue_model(device, **options):
    model = ours.build(dict(type='Queue', size=24, feat_dim=ours.C), **options)
    return moved(model, device)


@ON_A_GPU
def test_a_loss_scale_that_is_too_large_costs_one_step(device):
    model = queue_model(device)
    wrapper = ours.optim_wrapper(model, dtype='float16', loss_scale=2.0**60)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    views = ours.batches(60, 8)
    ours.train_step(model, wrapper, views[0], 0)
    assert not wrapper.stepped and wrapper.skipped == 1
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) or 'key_encoder' in name, name
    for step in range(1, 60):
        ours.train_step(model, wrapper, views[step], step)
        if wrapper.stepped:
            break
    assert wrapper.stepped


@ANYWHERE
@pytest.mark.parametrize('precision', [None, torch.bfloat16, FLOAT16])
@pytest.mark.parametrize('kind', ['beside', 'among', 'masked'])
def test_the_look_up_is_that_of_float64(kind, precision, device):
    draws = torch.Generator().manual_seed(0)

    def unit(*shape, dim):
        x = torch.randn(shape, generator=draws)
        return F.normalize(x, dim=dim).to(device)

    q, k = unit(64, 32, dim=1), unit(64, 32, dim=1)
    keys = unit(32, 3000, dim=0)
    q.requires_grad_()
    index = torch.arange(64, device=device)
    mask = torch.rand(64, 3000, generator=draws).to(device) < 0.2
    candidates = {
        'beside': Candidates(keys=keys, positives=k),
        'masked': Candidates(keys=keys, positives=k, mask=mask),
        'among': Candidates(keys=keys, positive_index=index),
    }[kind]
    with torch.autocast(device, precision, enabled=precision is not None):
        loss, _ = info_nce(q, candidates, 0.2)
    (grad,) = torch.autograd.grad(loss, q)
    similarity = q.double() @ keys.double()
    if kind == 'masked':
        similarity = similarity.masked_fill(mask, -torch.inf)
    target = index
    if kind != 'among':
        own = (q.double() * k.double()).sum(1, keepdim=True)
        similarity = torch.cat([own, similarity], 1)
        target = torch.zeros_like(index)
    expected = F.cross_entropy(similarity / 0.2, target)
    (exact,) = torch.autograd.grad(expected, q)
    rounded = precision == torch.bfloat16
    bound = 3e-3 if rounded else 1e-5
    torch.testing.assert_close(loss.double(), expected, rtol=bound, atol=0)
    scale = float(exact.abs().max())
    torch.testing.assert_close(
        grad, exact, rtol=0, atol=(2e-2 if rounded else 1e-4) * scale
    )


@ANYWHERE
@pytest.mark.parametrize('precision', [None, torch.bfloat16])
def test_a_collapsed_look_up_finds_nothing(precision, device):
    for seed in range(20):
        draws = torch.Generator().manual_seed(seed)
        vector = F.normalize(torch.randn(128, generator=draws), dim=0)
        vector = vector.to(device)
        same = vector.expand(256, 128).contiguous()
        keys = vector.expand(4096, 128).T.contiguous()
        with torch.autocast(device, precision, enabled=precision is not None):
            _, stats = info_nce(
                same, Candidates(keys=keys, positives=same), 0.2
            )
        assert stats.top1 == 0


@ANYWHERE
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('dtype', [None, torch.bfloat16, FLOAT16])
def test_split_batch_norm(layout, dtype, device):
    torch.manual_seed(0)
    images = torch.randn(16, 8, 6, 6)
    if layout == 'channels_last':
        images = images.contiguous(memory_format=torch.channels_last)
    if dtype is not None:
        images = images.to(dtype)
    found = []
    for where in ('cpu', device):
        norm = SplitBN(8, num_splits=4).to(where)
        own = images.float() if where == 'cpu' and device != 'cpu' else images
        x = own.detach().to(where).requires_grad_()
        y = norm(x)
        y.float().square().sum().backward()
        found.append([y, x.grad, norm.weight.grad, norm.running_var])
        assert where == 'cpu' or y.stride() == x.stride()
    bound = 2e-2 if dtype is not None else 1e-5
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(
            a.float().cpu(), b.float().cpu(), rtol=bound, atol=20 * bound
        )


@ANYWHERE
def test_adam_goes_on_without_waiting(device, small_config, runner_of):
    """A resumed step count stays on the host."""
    cfg = small_config()
    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=1e-3)
    runner = runner_of(cfg)
    runner.train()
    again = small_config(resume=True)
    again.optim_wrapper.optimizer = dict(type='AdamW', lr=1e-3)
    again.train_cfg.max_epochs = 2
    second = runner_of(again)
    second.train()
    for runner_, steps in ((runner, 4), (second, 8)):
        states = runner_.optim_wrapper.optimizer.state.values()
        assert {int(s['step']) for s in states} == {steps}
        assert {s['step'].device.type for s in states} == {'cpu'}
        assert {s['exp_avg'].device.type for s in states} == {device}


@ANYWHERE
def test_k_nn_does_not_round_to_tf32(device):
    draws = torch.Generator().manual_seed(0)
    bank = torch.randn(2000, 64, generator=draws)
    queries = torch.randn(50, 64, generator=draws)
    expected = nearest(bank, queries, 20)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        found = nearest(bank.to(device), queries.to(device), 20)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-5, atol=1e-6)


def mechanisms():
    bank = dict(type='MemoryBank', size=64, feat_dim=8, num_negatives=16)
    return {
        'memory bank': lambda: ours.build(bank),
        'end-to-end': lambda: ours.build(dict(type='InBatch', key_grad=True)),
        'queue': lambda: ours.build(dict(type='Queue', size=24, feat_dim=8)),
        'MMC': mmc.build,
    }


@ANYWHERE
@pytest.mark.parametrize('name', mechanisms())
@pytest.mark.parametrize('precision', ['float32', 'bfloat16', 'float16'])
def test_one_step_of_every_mechanism(name, precision, device):
    if device == 'cpu' and precision == 'float16':
        pytest.skip('A CPU has no float16 autocast with scaling.')
    model = moved(mechanisms()[name](), device)
    model.announce(*model.needs)
    wrapper = ours.optim_wrapper(model, dtype=precision)
    if name == 'MMC':
        model.set_address(seed=0, step=0, rank=0)
        log = model.train_step(mmc.data(0), wrapper)
    else:
        log = ours.train_step(model, wrapper, ours.batches(1, 8)[0], 0)
    assert wrapper.stepped and torch.isfinite(log['loss'])
    assert wrapper.grad_norm > 0


@ANYWHERE
def test_one_step_of_a_distillation(device):
    model = moved(distillation.build(), device)
    wrapper = ours.optim_wrapper(model, dtype='bfloat16')
    image = distillation.images().to(device)
    inputs = {'view_1': image}
    model.train_step({'inputs': inputs, 'ids': torch.arange(4)}, wrapper)
    assert wrapper.stepped


# ------------------------------------------------------ waits and launches


@ON_A_GPU
def test_a_step_waits_for_little(device):
    """What benchmarks/launches.py counts on the meta device, for real."""
    model = queue_model(device)
    wrapper = ours.optim_wrapper(model)
    views = ours.batches(4, 8).to(device)
    for step in range(3):
        ours.train_step(model, wrapper, views[step], step)
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter('always')
            ours.train_step(model, wrapper, views[3], 3)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    waits = [w for w in found if 'synchroniz' in str(w.message)]
    assert len(waits) <= 2, [str(w.message) for w in waits]


@ON_A_GPU
def test_launches_of_a_split_batch(device):
    from torch.profiler import ProfilerActivity, profile

    def kernels(norm):
        norm = norm.to(device)
        x = torch.randn(32, 64, 8, 8, device=device, requires_grad=True)
        norm(x).sum().backward()
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            norm(x).sum().backward()
            torch.cuda.synchronize()
        return sum(1 for event in found.events() if 'emcpy' not in event.name)

    plain = kernels(torch.nn.BatchNorm2d(64))
    assert kernels(SplitBN(64, num_splits=8)) <= plain + 20


@ON_A_GPU
@pytest.mark.slow
def test_the_estimate_of_memory_is_near(device, monkeypatch):
    from mmmoco.apis.preflight.memory_estimate import estimate_memory

    cfg = load_config('mocov2_r50_8xb32')
    cfg.optim_wrapper.type = 'mmmoco.ContrastOptimWrapper'
    estimate = estimate_memory(cfg, 64)
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / 'benchmarks')
    measured = importlib.import_module('memory').measure(cfg, 64).peak
    assert 0.85 < estimate.total / measured < 1.15


# --------------------------------------------------------- one process, DDP


PROGRAM = """
import sys
import types
import torch
import torch.distributed as dist
from mmengine.dist import init_dist
from mmengine.model import MMDistributedDataParallel

device = sys.argv[1]
if device == 'cuda':
    init_dist('pytorch')
else:
    dist.init_process_group('gloo')
from mmmoco.functional import gather, shuffle_plan
from torch.distributed.nn.functional import all_to_all_single

# Whatever else is installed under that name.
sys.modules['tests'] = types.ModuleType('tests')
sys.modules['tests'].__path__ = [sys.argv[2]]
from tests.conftest import since_torch
from tests.golden import ours

norm = 'SyncBN' if device == 'cuda' else 'BN'
model = ours.build(
    dict(type='Queue', size=24, feat_dim=ours.C), backbone=ours.conv_net(norm)
).to(device)
model.data_preprocessor.to(device)
ids = [0] if device == 'cuda' else None
wrapped = MMDistributedDataParallel(
    model, device_ids=ids, broadcast_buffers=False
)
wrapper = ours.optim_wrapper(model)
model.set_address(seed=0, step=0, rank=0)
views = ours.batches(1, 8)[0]
wrapped.train_step(
    {
        'inputs': {'view_q': views[0], 'view_k': views[1]},
        'ids': torch.arange(8),
    },
    wrapper,
)
assert wrapper.stepped
for dtype in (torch.uint8, torch.float32, torch.bfloat16, torch.int64):
    x = torch.arange(12, device=device).view(4, 3).to(dtype)
    back = all_to_all_single(torch.empty_like(x), x, [4], [4])
    assert torch.equal(back, x)
    parts = [torch.empty_like(x)]
    dist.all_gather(parts, x)
    assert torch.equal(parts[0], x)
    assert torch.equal(gather(x), x)
dist.destroy_process_group()
print('done')
"""


@pytest.mark.parametrize(
    'device', [pytest.param('cpu', marks=pytest.mark.dist), CUDA]
)
def test_one_process_of_torchrun(device, tmp_path):
    path = tmp_path / 'program.py'
    path.write_text(PROGRAM)
    tests = Path(__file__).parents[1]
    environment = os.environ | {
        'PYTHONPATH': str(tests.parent),
        'OMP_NUM_THREADS': '1',
    }
    if device == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = ''
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc-per-node=1',
            str(path),
            device,
            str(tests),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert 'done' in done.stdout, done.stderr[:2000]
