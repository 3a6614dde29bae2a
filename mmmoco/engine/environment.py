"""``environment.json``: with what a run was made."""

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size, master_only

import mmmoco
from mmmoco.engine.checkpoint_io import write_text
from mmmoco.openmmlab import owner_of
from mmmoco.version import __version__

PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', 'numpy')


@master_only
def write_environment(folder: str, images: int = 0) -> None:
    """Write ``folder/environment.json``.

    Args:
        folder: Of the log.
        images: To train on; 0: not known.
    """
    found = describe_environment()
    if images:
        found['training images'] = images
    text = json.dumps(found, indent=2)
    write_text(Path(folder) / 'environment.json', f'{text}\n')


def describe_environment() -> dict[str, Any]:
    """Return versions, hardware and the revision of mmmoco's checkout."""
    gpu = torch.cuda.is_available()
    owners = {name: owner_of(name) for name in PACKAGES}
    found: dict[str, Any] = {
        'mmmoco': __version__,
        'git revision': git_revision(Path(mmmoco.__file__).parent),
        'python': platform.python_version(),
        'system': f'{platform.system()}, {platform.machine()}',
        'CPUs': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'processes': get_world_size(),
        'started': time.strftime('%Y-%m-%dT%H:%M:%S'),
        'GPU': torch.cuda.get_device_name() if gpu else None,
        **{name: found.version for name, found in owners.items() if found},
    }
    return {name: value for name, value in found.items() if value}


def git_revision(folder: Path) -> str | None:
    """Return the commit of the checkout that a folder belongs to.

    Args:
        folder: Any folder of it.

    Returns:
        The commit, with ``, modified`` if tracked files differ from it; None
        if the folder is not under version control.
    """
    git = ['git', '-C', str(folder)]
    commit = _output([*git, 'rev-parse', 'HEAD'])
    # An installed package may lie inside somebody else's checkout.
    if not commit or not _output([*git, 'ls-files', '__init__.py']):
        return None
    changed = _output([*git, 'status', '--porcelain', '-uno'])
    return f'{commit}, modified' if changed else commit


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
