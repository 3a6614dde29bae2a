"""A tool started in a foreign folder imports nothing that lies there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ('torch', 'mmmoco', 'numpy', 'mmengine', 'mmcv', 'pip', 'json')
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


@pytest.fixture
def foreign(tmp_path):
    """A folder whose modules tell when they are run."""
    folder, programs = tmp_path / 'foreign', tmp_path / 'bin'
    folder.mkdir()
    programs.mkdir()
    (programs / 'srun').write_text(SRUN)
    (programs / 'srun').chmod(0o755)
    for name in NAMES:
        (folder / f'{name}.py').write_text(
            f'open({str(tmp_path / "ran")!r}, "a").write("{name} ")\n'
        )
    return folder


def run(folder, *command):
    """Run a command there, as a user with the package installed."""
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    env |= {
        'VIRTUAL_ENV': sys.prefix,
        'PATH': f'{folder.parent / "bin"}{os.pathsep}{os.environ["PATH"]}',
        'OMP_NUM_THREADS': '1',
        'TMPDIR': str(folder.parent),
    }
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, timeout=200
    )
    ran = folder.parent / 'ran'
    assert not ran.exists(), ran.read_text()
    return done.returncode, done.stderr.decode()


@pytest.mark.slow
def test_train_py_runs_nothing_of_it(foreign):
    code, text = run(
        foreign, sys.executable, ROOT / 'tools/train.py', 'absent.py'
    )
    assert code == 2 and 'absent.py' in text, text


@pytest.mark.dist
@pytest.mark.parametrize(
    'command',
    [
        ('dist_train.sh', 'absent.py', '1'),
        ('dist_test.sh', 'absent.py', 'absent.pth', '1'),
        ('slurm_train.sh', 'partition', 'job', 'absent.py'),
        ('transfer.sh', 'absent.pth', 'voc-seg', '1'),
    ],
)
def test_launchers_run_nothing_of_it(foreign, command):
    script, *arguments = command
    code, text = run(foreign, 'bash', ROOT / 'tools' / script, *arguments)
    assert code and 'absent' in text, text


def test_setup_leaves_the_folder_before_it_calls_python():
    text = (ROOT / 'tools/setup.sh').read_text()
    assert '\ncd "$root"\n' in text[: text.index('"$python"')]
    for name in ('quickstart.sh', 'run_tests.sh'):
        text = (ROOT / 'tools' / name).read_text()
        calls = [text.find(f'{word}"$python"') for word in ('\n', 'exec ')]
        first = min(place for place in calls if place > 0)
        assert 0 < text.index('\ncd "$root"\n') < first


def test_no_launcher_starts_a_module_from_the_current_folder():
    # Drops it before anything is imported that has a file.
    safe = '"$python" -c "import sys; sys.path = [p for p in sys.path if p]'
    for script in (ROOT / 'tools').glob('*.sh'):
        text = script.read_text().replace(safe, '')
        if '\ncd "$root"\n' not in text:
            assert '"$python" -m' not in text, script
            assert '"$python" -c' not in text, script
            assert '"$python" -\n' not in text, script
