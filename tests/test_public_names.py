"""What ``import mmmoco`` brings: every job, and nothing that takes time."""

import inspect
import subprocess
import sys
from pathlib import Path

import mmmoco

ROOT = Path(__file__).parents[1]
LOADED_LATER = {'TrainStep', 'get_model', 'list_configs', 'load_config'}
JOBS = sorted({*mmmoco.__all__} - LOADED_LATER - {'__version__'})
CODE = """
import inspect, sys, mmmoco
for name in sys.argv[1:]:
    inspect.signature(getattr(mmmoco, name))
heavy = 'torch numpy mmengine mmcv mmpretrain cv2 PIL'.split()
print([name for name in heavy if name in sys.modules])
"""


def test_signatures_are_read_without_a_heavy_import():
    done = subprocess.run(
        [sys.executable, '-c', CODE, *JOBS], capture_output=True, text=True
    )
    assert done.stdout.strip() == '[]', done.stderr


def test_every_name_is_there_and_documented():
    assert {*mmmoco.__all__} <= {*dir(mmmoco)}
    for name in mmmoco.__all__:
        assert getattr(mmmoco, name) is not None
    for name in JOBS:
        job = getattr(mmmoco, name)
        sections = inspect.getdoc(job)
        assert 'Args:\n' in sections and 'Raises:\n' in sections, name
        named = sections.split('Args:\n')[1]
        for parameter in inspect.signature(job).parameters:
            assert f'    {parameter}: ' in named, f'{name}({parameter})'
