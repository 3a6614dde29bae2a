"""A part of the suite, run with OpenMMLab's original packages.

``tools/setup.sh full`` puts them into a folder of the environment; in front
of the path they hide the maintained ones. ``tools/test_matrix.sh`` runs more,
in environments of their own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORIGINALS = Path(sys.prefix) / 'originals'
pytestmark = [pytest.mark.stack, pytest.mark.slow]

CORE = [
    'tests/golden',
    'tests/engine/checkpoint_io',
    'tests/engine/test_earlier_checkpoints.py',
    'tests/security/test_checkpoints.py',
    'tests/security/test_reading_places.py',
    'tests/test_openmmlab.py',
    'tests/test_private_names.py',
    'tests/apis/test_tools.py',
]
DOWNSTREAM = [
    'tests/downstream/test_segmentation.py',
    'tests/downstream/test_detection.py',
    # The ViT of ADE20K alone takes half a minute.
    *('-k', '(loads or own_tools or demo or records) and not ade'),
]


@pytest.fixture(scope='module')
def originals():
    """The environment for processes that import the original packages."""
    if not ORIGINALS.is_dir() and os.environ.get('MMMOCO_FULL') != '1':
        pytest.skip(f'{ORIGINALS} is made by tools/setup.sh full')
    env = {**os.environ, 'PYTHONPATH': f'{ORIGINALS}:{ROOT}'}
    script = """
from mmmoco.openmmlab import DISTRIBUTIONS, owner_of
print(*(owner_of(package).metadata['Name'] for package in DISTRIBUTIONS))
"""
    done = subprocess.run(
        [sys.executable, '-c', script],
        env=env,
        capture_output=True,
        text=True,
    )
    names = 'mmengine mmcv-lite mmpretrain mmdet mmsegmentation'
    assert done.stdout.split() == names.split(), done.stderr
    return env


@pytest.mark.parametrize(
    ('marks', 'files'),
    [
        ('not slow and not dist and not gpu and not downstream', CORE),
        ('downstream and not dist', DOWNSTREAM),
    ],
    ids=['core', 'downstream'],
)
def test_the_suite_passes(originals, tmp_path, marks, files):
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider'),
            *('--basetemp', tmp_path / 'runs', '-m', marks, *files),
        ],
        cwd=ROOT,
        env=originals,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r'(\d+) passed', done.stdout)
    assert passed and int(passed[1]) > 10
