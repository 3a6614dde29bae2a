"""A job leaves its process as it found it."""

import inspect
import multiprocessing
import os
import subprocess
import sys

import cv2
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

import mmmoco
from mmmoco.apis import load_config
from mmmoco.apis.process import LIMIT, tidy
from mmmoco.apis.training.jobs import train
from mmmoco.datasets import AddressedDataset
from tests.security.test_reading_places import assert_left, state


def settings():
    return {
        'environment': os.environ | {'PYTEST_CURRENT_TEST': ''},
        'threads': cv2.getNumThreads(),
        'start': multiprocessing.get_start_method(allow_none=True),
    }


@pytest.fixture
def before(monkeypatch):
    """Settings that no job would choose."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    for name in LIMIT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('KEPT', 'a')
    yield settings()
    cv2.setNumThreads(threads)


def test_what_a_job_sets_ends_with_it(before):
    @tidy
    def job(value):
        assert os.environ.items() >= LIMIT.items()
        os.environ['KEPT'] = 'b'
        os.environ['NEW'] = 'c'
        cv2.setNumThreads(0)
        multiprocessing.set_start_method('spawn', force=True)
        if value:
            raise KeyError(value)
        return value

    assert job(0) == 0
    assert settings() == before
    with pytest.raises(KeyError):
        job(1)
    assert settings() == before


def test_a_limit_that_is_set_stays(monkeypatch):
    monkeypatch.setenv('OPENCV_IO_MAX_IMAGE_PIXELS', '5')
    assert tidy(lambda: os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'])() == '5'


def test_every_job_that_takes_a_config_is_tidy():
    jobs = {
        name: job
        for name in mmmoco.__all__
        if inspect.isfunction(job := getattr(mmmoco, name))
        and 'config' in inspect.signature(job).parameters
    }
    assert {'train', 'verify_config', 'get_model'} <= set(jobs)
    for name, job in jobs.items():
        assert name in ('get_model', 'load_config') or (
            job.__code__ is jobs['train'].__code__
        ), f'{name} lacks @tidy'


@pytest.mark.slow
def test_a_training_leaves_nothing(before, tmp_path):
    libraries = state()
    cfg = load_config('demo/mocov2_digits')
    cfg.train_dataloader.batch_size = 4
    hooks = [h for h in cfg.custom_hooks if 'KNN' not in h.type]
    cfg.custom_hooks = hooks
    train(cfg, max_iters=1, work_dir=str(tmp_path))
    assert settings() == before
    assert_left(libraries)


def test_a_failed_job_leaves_its_logger_and_no_scope():
    scope = DefaultScope.get_current_instance()

    @tidy
    def fail():
        DefaultScope.get_instance('failed', scope_name='mmdet')
        MMLogger.get_instance('failed')
        raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert DefaultScope.get_current_instance() is scope
    assert MMLogger.check_instance_created('failed')


@pytest.mark.slow
def test_importing_changes_nothing():
    code = """
import os, cv2
before = dict(os.environ), cv2.getNumThreads()
import mmmoco
from mmmoco import datasets, engine, models
from mmmoco.apis import get_model
assert (dict(os.environ), cv2.getNumThreads()) == before
"""
    env = {k: v for k, v in os.environ.items() if k not in LIMIT}
    subprocess.run([sys.executable, '-c', code], env=env, check=True)


class Threads(AddressedDataset):
    def __len__(self):
        return 1

    def sample(self, index):
        return {}

    def __getitem__(self, item):
        super().__getitem__(item)
        return cv2.getNumThreads()


def test_a_data_worker_is_one_thread(before):
    loader = DataLoader(
        Threads(), num_workers=1, multiprocessing_context='fork'
    )
    assert list(map(int, loader)) == [1]
    # So is the process that makes a data set, before it forks workers.
    assert list(map(int, DataLoader(Threads()))) == [1]


def test_a_path_may_be_one_of_pathlib(tmp_path):
    @tidy
    def job(path, *, out, k):
        return path, out, k

    text = str(tmp_path)
    assert job(tmp_path, out=tmp_path, k=3) == (text, text, 3)


def test_a_job_closes_its_log_and_resets_cudnn(tmp_path):
    made = []
    torch.backends.cudnn.benchmark = False

    @tidy
    def job():
        torch.backends.cudnn.benchmark = True
        log = str(tmp_path / 'log')
        made.extend(MMLogger.get_instance('a run', log_file=log).handlers)

    job()
    assert not torch.backends.cudnn.benchmark
    assert made[-1].stream is None
