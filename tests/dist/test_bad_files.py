"""Bad files of two processes are counted together and listed once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .launching import launch

SCRIPT = '''
import json, sys
from pathlib import Path
from types import SimpleNamespace

import torch.distributed as dist
from mmengine.logging import MMLogger

from mmmoco.datasets import BadFileLog
from mmmoco.engine.hooks import BadFilesHook

dist.init_process_group('gloo')
rank = dist.get_rank()
work_dir = sys.argv[1]
dataset = SimpleNamespace(bad_files=BadFileLog())
runner = SimpleNamespace(
    train_dataloader=SimpleNamespace(dataset=dataset),
    work_dir=work_dir, iter=0, world_size=2,
    logger=MMLogger.get_instance('x', log_level='ERROR'),
)
hook = BadFilesHook(min_samples=100, max_fraction=0.05, interval=1)
hook.before_train(runner)
dataset.bad_files.note('shared', 'broken')
dataset.bad_files.note(f'of {rank}', 'broken')
for step in range(2):
    bad = [1, 2] + [0] * 18 if rank == 0 and step == 0 else [0] * 20
    hook.after_train_iter(runner, step, dict(ids=range(20), bad=bad))
    runner.iter += 1
counts = [hook.all_bad, hook.all_seen]
message = ''
try:  # 80 samples so far: the next look judges, on both processes.
    bad = [1] * 5 + [0] * 15 if rank == 1 else [0] * 20
    hook.after_train_iter(runner, 2, dict(ids=range(20), bad=bad))
except ValueError as error:
    message = str(error)
Path(work_dir, f'{rank}.json').write_text(json.dumps([counts, message]))
'''


@pytest.mark.dist
def test_bad_files_of_two_processes(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    launch(script, tmp_path)
    for rank in range(2):
        counts, message = json.loads((tmp_path / f'{rank}.json').read_text())
        assert counts == [2, 80]
        assert message.startswith('7 of 120 samples (5.8 %)')
    lines = (tmp_path / 'bad_files.txt').read_text().splitlines()
    assert sorted(lines) == [
        'of 0\tbroken',
        'of 1\tbroken',
        'shared\tbroken',
    ]
