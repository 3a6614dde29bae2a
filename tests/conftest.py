"""What several test files share: small runs of the real runner."""

import copy
import importlib
import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from packaging.version import Version

from mmmoco.apis import cli

#: Tests that kill processes and fill disks.
FAULTS = Path(__file__).parent / 'faults'
TOOLS = Path(__file__).parents[1] / 'tools'
SMALL = {
    'train_dataloader.batch_size': 16,
    'train_dataloader.dataset.num_scenes': 64,
    'model.dictionary.size': 64,
    'model.backbone.channels': (4, 8),
    'model.backbone.strides': (1, 2),
    'model.backbone.out_indices': (1,),
    'model.neck.in_channels': 8,
    'model.neck.hid_channels': 8,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.interval': 1,
    'train_cfg.max_epochs': 1,
    'schedule': 'keep',  # That of the demo, cut off.
    'knn.bank.dataset.num_scenes': 40,
    'knn.query.dataset.num_scenes': 20,
}
#: The demo's network and k-NN on the command line, for ``--cfg-options``.
TINY = [
    'model.dictionary.size=64',
    'model.backbone.channels=4,8',
    'model.backbone.strides=1,2',
    'model.backbone.out_indices=[1]',
    'model.neck.in_channels=8',
    'model.neck.hid_channels=8',
    'knn.bank.dataset.num_scenes=60',
    'knn.query.dataset.num_scenes=30',
]


def call(tool, *argv):
    """Run a tool, given as its file, job or main; return the exit code."""
    argv = [str(a) for a in argv]
    # A process of its own has no loggers, which keep the stdout of before.
    MMLogger._instance_dict.clear()
    try:
        if isinstance(tool, str):
            _run_file(TOOLS / tool, argv)
        elif tool.__name__ == 'main':
            tool(argv)
        else:
            cli.main(tool, argv)
    except SystemExit as stop:
        return stop.code or 0
    return 0


def _run_file(path, argv):
    before, sys.argv = sys.argv, [str(path), *argv]
    try:
        runpy.run_path(str(path), run_name='__main__')
    finally:
        sys.argv = before


def one_line(capsys):
    """Return the only error that was printed; there is no trace."""
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if ': error: ' in line]
    assert len(errors) == 1 and 'Traceback' not in '\n'.join(lines)
    return errors[0]


def results(folder):
    """Return what evaluations appended in a folder."""
    lines = (folder / 'results.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]


def optional(name):
    """Import a library of the full set-up; without it the test is skipped.

    ``tools/run_tests.sh`` sets ``MMMOCO_FULL=1``: then it has to be there.
    """
    if os.environ.get('MMMOCO_FULL') == '1':
        return importlib.import_module(name)
    return pytest.importorskip(name)


def since_torch(version):
    """Skip a test of what older ones do not have."""
    found = Version(torch.__version__)
    return pytest.mark.skipif(
        found < Version(version), reason=f'torch {version} brought it'
    )


def pytest_addoption(parser):
    parser.addoption(
        '--part',
        choices=['together', 'alone'],
        help='only the tests that may run side by side, or only the others',
    )


def pytest_collection_modifyitems(config, items):
    """Choose a part; ``tools/run_tests.sh`` runs one after the other."""
    part = config.getoption('--part')
    if part is None:
        return
    alone = [
        any(map(item.get_closest_marker, ('alone', 'dist', 'browser')))
        or item.path.is_relative_to(FAULTS)
        for item in items
    ]
    chosen = {True: [], False: []}
    for item, is_alone in zip(items, alone, strict=True):
        chosen[is_alone == (part == 'alone')].append(item)
    # The runs of tests/faults are forked, which autograd forbids once it has
    # started threads in this process: they come first.
    items[:] = sorted(
        chosen[True], key=lambda item: not item.path.is_relative_to(FAULTS)
    )
    config.hook.pytest_deselected(items=chosen[False])


def pytest_runtest_setup(item):
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('no GPU')


@pytest.fixture(autouse=True)
def forget_global_instances():
    """mmengine keeps loggers and scopes by name; no test sees another's."""
    yield
    for manager in (MMLogger, MessageHub, Visualizer, DefaultScope):
        manager._instance_dict.clear()


@pytest.fixture
def small_config(tmp_path):
    """Return a function that makes the demo's config tiny and applies more.

    Without k-NN, unless ``knn=True``.
    """
    from mmmoco.apis import load_config

    def make(knn=False, **options):
        cfg = load_config('demo/mocov2_digits', copy.deepcopy(SMALL))
        cfg.work_dir = str(tmp_path / 'run')
        cfg.overwrite = True  # Tests train there again and again.
        kept = [h for h in cfg.custom_hooks if h.type != 'KNNHook']
        if knn:
            kept.append(dict(type='KNNHook', interval=1))
        cfg.custom_hooks = kept
        cfg.merge_from_dict(options)
        return cfg

    return make


@pytest.fixture
def runner_of():
    """Return a function that builds a runner with a name of its own."""
    from mmmoco.apis.training.runner import build_runner

    counter = iter(range(1000))

    def build(cfg):
        import time

        cfg.experiment_name = f'test_{time.time_ns()}_{next(counter)}'
        return build_runner(cfg)

    return build
