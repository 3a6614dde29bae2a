"""A finished run for every test here, all under our reader."""

import shutil

import pytest

from mmmoco.engine import checkpoint_io

from .tiny_runs import make_runner


@pytest.fixture(autouse=True)
def guarded():
    with checkpoint_io.guarded:
        yield


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """The work directory of a run of two iterations; copy it to change it."""
    work_dir = tmp_path_factory.mktemp('finished')
    with checkpoint_io.guarded:
        make_runner(work_dir).train()
    return work_dir


@pytest.fixture
def work_dir(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / 'run')
    (copy / 'last_checkpoint').write_text(str(copy / 'iter_2.pth'))
    return copy
