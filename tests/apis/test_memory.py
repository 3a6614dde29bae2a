"""The memory estimate: counted, against formulas, and against a process."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmmoco.apis import load_config
from mmmoco.apis.preflight import jobs, memory_estimate
from mmmoco.apis.preflight.live_bytes import (
    LiveBytes,
    placed,
    storage_bytes,
)
from mmmoco.apis.preflight.memory_estimate import estimate_memory

from ..conftest import call

pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.mark.parametrize('fake', [True, False])
def test_live_bytes_follow_storages(fake):
    mode = FakeTensorMode() if fake else torch.enable_grad()
    with mode, LiveBytes() as counter:
        a = torch.ones(256, 1024)  # 1 MiB
        assert counter.live == MIB
        view = a.view(-1)[10:]  # No new storage.
        a += 1
        assert counter.live == MIB
        with counter.during('more'):
            b = a * 2
            assert counter.live == 2 * MIB
            (a + b).sum()  # 1 MiB for a moment, and a scalar.
        assert counter.peaks == {'': MIB, 'more': 3 * MIB + 512}
        del a, b
        assert counter.live == MIB  # the view
        del view
        assert counter.live == 0


def test_what_autograd_keeps_is_counted():
    layers = nn.Sequential(
        nn.Linear(64, 1024, bias=False), nn.Linear(1024, 64, bias=False)
    )
    x = torch.ones(128, 64)
    counter = LiveBytes()
    counter.count([x, *layers.parameters()])
    before = counter.live
    with counter:
        y = layers(x)
        # Kept: the input of the second layer, and the output.
        assert counter.live - before == 4 * 128 * (1024 + 64)
        y.sum().backward()
        del y
        gradients = [p.grad for p in layers.parameters()]
        assert counter.live - before == storage_bytes(gradients)


def test_a_placed_model_keeps_layout_and_sharing():
    with torch.device('meta'):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3))
    model.to(memory_format=torch.channels_last)
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    model = placed(model, 'cpu')
    assert model[1].weight is model[0].weight
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not model[0].bias.requires_grad and model[1].bias.requires_grad
    assert not any(p.is_meta for p in model.parameters())


def test_published_config_without_its_memory_or_data():
    """ResNet-50: what does not depend on measuring, exactly."""
    learn = 4 * 27_966_656
    e = estimate_memory(load_config('mocov2_r50_8xb32'), processes=8)
    assert e.method == 'fake tensors' and e.batch_size == 32
    assert e.trained == e.frozen == e.gradients == e.buckets == learn
    assert e.optimizer == learn  # SGD: one momentum
    assert e.dictionary == 4 * 128 * 65536 + 8
    assert set(e.peaks) >= {'forward', 'key pass', 'backward', 'optimizer'}
    assert e.total == max(e.peaks.values()) + e.buckets
    # The feature maps of ResNet-50 at 224 pixels, float32: about 22 million
    # values an image before and after every BatchNorm and ReLU in place.
    assert 70 * MIB < e.kept / 32 < 95 * MIB
    smaller = estimate_memory(load_config('mocov2_r50_8xb32'), 16)
    assert e.kept / smaller.kept == pytest.approx(2.0, rel=0.02)
    half = estimate_memory(
        load_config('mocov2_r50_8xb32'), 16, dtype='bfloat16'
    )
    assert 0.45 < half.kept / smaller.kept < 0.7
    assert half.trained == smaller.trained


def test_dense_keys_need_a_second_queue_and_no_matrix_of_similarities():
    cfg = load_config('densecl_r50_8xb32_200e', {'model.backbone.depth': 18})
    e = estimate_memory(cfg, 16)
    assert e.dictionary == 2 * (4 * 128 * 65536 + 8)
    assert set(e.peaks) >= {'forward', 'key pass', 'backward', 'optimizer'}
    cfg.model.dictionary.size = 1024
    short = estimate_memory(cfg, 16)
    matrix = 16 * 49 * 65536 * 4
    grown = e.total - short.total - (e.dictionary - short.dictionary)
    assert grown < 0.4 * matrix


def test_real_tensors_agree_with_fake_ones(monkeypatch, small_config):
    """Where fake tensors fail, small batches extrapolate to the same."""
    cfg = small_config()
    fake = estimate_memory(cfg, 64)

    def fail(*args):
        raise RuntimeError('no kernel')

    monkeypatch.setattr(memory_estimate, 'placed', fail)
    real = estimate_memory(cfg, 64)
    assert 'extrapolated from batches of 8 and 16' in real.method
    assert 'no kernel' in real.method
    for name in ('trained', 'frozen', 'optimizer', 'gradients'):
        assert getattr(real, name) == getattr(fake, name)
    assert real.kept == pytest.approx(fake.kept, rel=0.05)
    assert real.total == pytest.approx(fake.total, rel=0.05)


def test_accumulation_keeps_the_gradients_over_the_forward(small_config):
    cfg = small_config()
    once = estimate_memory(cfg)
    cfg.optim_wrapper.accumulative_counts = 4
    more = estimate_memory(cfg)
    grown = more.peaks['key pass'] - once.peaks['key pass']
    assert grown >= 0.9 * once.gradients


@pytest.mark.parametrize(
    'name',
    ['vit-s_1xb256_dinov2_cifar10-96px', 'convnext-t_8xb128_dinov3'],
)
def test_teacher_is_a_phase_and_learns_nothing(name):
    name = f'distill_{name}'
    e = estimate_memory(load_config(name), 2)
    assert 'teacher pass' in e.peaks
    assert e.frozen > e.trained and e.optimizer < 2.1 * e.trained


def test_table_and_json(tmp_path, capsys):
    file = tmp_path / 'memory.json'
    argv = ['demo/mocov2_digits', '--batch-size', 16, '--json', file]
    options = ['--cfg-options', 'model.dictionary.size=64']
    assert call(jobs.estimate_memory, *argv, *options) == 0
    out = capsys.readouterr().out
    assert 'TOTAL per process' in out and 'float32 *' in out
    rows = [line for line in out.splitlines() if line.endswith('MiB')]
    assert len({len(row) for row in rows}) == 1
    figures = json.loads(file.read_text())
    single, mixed = figures['estimates']
    assert (single['dtype'], mixed['dtype']) == ('float32', 'bfloat16')
    assert mixed['kept'] < single['kept'] and mixed['batch_size'] == 16
    assert single['dictionary'] == 4 * 64 * 64 + 8
    parts = ('trained', 'frozen', 'dictionary', 'buffers', 'optimizer')
    total = sum(single[p] for p in (*parts, 'buckets', 'working'))
    assert total == single['total']


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['nowhere'], ['nowhere']),
        (['demo/mocov2_digits', '--batch-size', 0], ['--batch-size 0']),
        (['demo/mocov2_digits', '--gpus', 0], ['--gpus 0']),
        (['demo/mocov2_digits', '--batch-size', 126], ['126', '4']),
        (
            ['mmpretrain::resnet/resnet18_8xb32_in1k.py'],
            ['data_preprocessor'],
        ),
        (
            ['demo/mocov2_digits', '--cfg-options', 'model.m=0.001'],
            ['m=0.001'],
        ),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(argv, words, capsys):
    assert call(jobs.estimate_memory, *argv) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    (line,) = [line for line in lines if ': error: ' in line]
    assert all(word in line for word in words), line


@pytest.fixture
def benchmark(monkeypatch):
    """Return benchmarks/memory.py, which its processes find too."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / 'benchmarks')
    return importlib.import_module('memory')


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.parametrize(
    ('name', 'batch', 'tolerance'),
    [('demo/mocov2_digits', 128, 0.2), ('mocov2_r50_8xb32', 8, 0.2)],
)
def test_against_a_process(benchmark, name, batch, tolerance):
    """On a CPU within 20 %, beside what libraries keep for themselves."""
    cfg = load_config(name)
    estimate = estimate_memory(cfg, batch)
    measured = benchmark.measure(cfg, batch)
    own = estimate.total
    if measured.device == 'cpu':
        own -= estimate.model
    libraries = 3 * 2**20
    assert own == pytest.approx(measured.peak, rel=tolerance, abs=libraries)


@pytest.mark.gpu
def test_against_a_gpu(benchmark):
    cfg = load_config('mocov2_r50_8xb32')
    estimate = estimate_memory(cfg, 32)
    measured = benchmark.measure(cfg, 32)
    assert measured.device == 'cuda'
    assert estimate.total == pytest.approx(measured.peak, rel=0.1)
