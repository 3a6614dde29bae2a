"""What ``import mmmoco`` brings: every job, and nothing that takes time."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmmoco

from .conftest import optional

ROOT = Path(__file__).parents[1]
LOADED_LATER = {'TrainStep', 'get_model', 'list_configs', 'load_config'}
JOBS = sorted({*mmmoco.__all__} - LOADED_LATER - {'__version__'})
#: Later than the tools: the command mmmoco has them.
ONLY_COMMANDS = {'plan', 'pretrain', 'transfer_config', 'near_duplicates'}
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


def test_every_tool_is_a_job_of_the_package():
    page = (ROOT / 'docs' / 'python.md').read_text()
    assert not [name for name in JOBS if f'`{name}`' not in page]
    jobs = set()
    for path in (ROOT / 'tools').glob('*.py'):
        _, _, call = path.read_text().partition('cli.main(')
        jobs.add(re.match(r'\w+', call)[0])
    assert jobs == {*JOBS} - ONLY_COMMANDS


#: What cv2 and sklearn set in the environment as they are imported is theirs.
BEFORE = """
import os
import cv2
import sklearn
os.chdir(os.sys.argv[1])
before = dict(os.environ)
"""
AFTER = """
import json
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

assert dict(os.environ) == before
assert DefaultScope.get_current_instance() is None
assert run.iterations == 50 and run.checkpoint.endswith('run/iter_50.pth')
live, after = map(json.loads, open('run/results.jsonl').readlines()[-2:])
assert live['metrics'] == after['metrics'] == knn[20]
assert live['checkpoint'] is None and after['checkpoint'] == run.checkpoint
import timm
net = timm.create_model(
    'resnet18', num_classes=0, in_chans=1, checkpoint_path=str(out.path)
)
model = mmmoco.get_model(cfg, run.checkpoint)
image = torch.randn(2, 1, 48, 48)
theirs, ours = net.eval()(image), model.extract_feat(image)
assert torch.allclose(theirs, ours, atol=1e-5), (theirs - ours).abs().max()
again = mmmoco.train(cfg, work_dir='run', max_iters=51, resume=True)
assert again.iterations == 51
"""
FILES = """
from PIL import Image
for name in ('a.jpg', 'b.png'):
    Image.new('L', (16, 16), 99).save(name)
"""


@pytest.mark.slow
def test_a_session_of_python(tmp_path):
    """That of the page, in one process without a command line."""
    optional('timm')
    page = (ROOT / 'docs' / 'python.md').read_text()
    session, single = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    assert len([line for line in session.splitlines() if line]) <= 10
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            BEFORE + session + AFTER + FILES + single,
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r'\d run/resnet18-[0-9a-f]{8}\.pth\n', done.stdout)
