"""What a command line names is there: said before anything is imported.

The jobs check it, too, since they are also called from Python; but then torch
is imported, which takes seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmmoco.restarts import usual_work_dir, why_started_again

from .lookup import missing, resolve_config

#: Parameters of jobs that name files or folders that must be there.
FILES = ('checkpoint', 'resume', 'load_from')
PLACES = (
    'checkpoint_dir',
    'data',
    'data_root',
    'folder',
    'images',
    'root',
    'work_dirs',
)
#: What holds no weights, and was meant as something else.
CONFIGS = ('.py', '.json', '.yaml', '.yml')
#: What is said where neither a config nor the command line names images.
NO_IMAGES = (
    'A checkpoint names no images: name a folder with --data, or the config '
    'of the run with --config.'
)
#: What these may be instead of a file.
WORDS = ('auto', 'random', 'supervised')
#: Data sets that fetch their files into a new folder.
FETCHING = re.compile(r'CIFAR10|MNIST|HuggingFace|download')


def require_places(
    given: Mapping[str, Any], positionals: Sequence[str] = ()
) -> None:
    """Check that config, checkpoints and data of a command line are there.

    Args:
        given: Values of a job's parameters, by name.
        positionals: Those that are given without their name.

    Raises:
        FileNotFoundError: If one is not, with the nearest that is.
        ValueError: If one is of another kind, or no images are named.
    """
    if wrong := not_a_checkpoint(given):
        raise ValueError(wrong)
    config = given.get('config')
    if isinstance(config, str):
        resolve_config(config)
    # Of a run that is started again they were for the first time; of several
    # the job says that they contradict each other.
    starts = [n for n in ('resume', 'load_from', 'init') if given.get(n)]
    again = config and why_started_again(
        given.get('work_dir') or usual_work_dir(str(config))
    )
    unused = len(starts) > 1 or again
    for name in FILES:
        path = given.get(name)
        if unused and name in starts:
            continue
        if isinstance(path, str) and path not in WORDS and _absent(path):
            if name == 'checkpoint':
                swapped = Path(given.get('out') or '').suffix == '.pth'
                raise FileNotFoundError(
                    f'Checkpoint {missing(path)}'
                    + ' The checkpoint comes first.' * swapped
                )
            raise FileNotFoundError(f'{flag_of(name)}: {missing(path)}')
    source = given.get('source')  # A path, or of some jobs a config.
    if isinstance(source, str) and _absent(source):
        try:
            resolve_config(source)
        except FileNotFoundError as error:
            raise FileNotFoundError(missing(source)) from error
    for name in PLACES:
        for path in _paths(given.get(name)):
            if _absent(path):
                flag = '' if name in positionals else f'{flag_of(name)}: '
                raise FileNotFoundError(f'{flag}{missing(path)}')
            if name in ('data', 'checkpoint_dir') and Path(path).is_file():
                raise NotADirectoryError(f'{path!r} is a file: give a folder.')
    options = given.get('cfg_options') or {}
    if (
        'data' in given
        and 'checkpoint' in given
        and not (config or given['data'] or given.get('images') or options)
    ):
        raise ValueError(NO_IMAGES)
    if isinstance(config, str) and 'max_iters' in given:
        _require_own_data(config, options)
    for key, value in options.items():
        if key.rpartition('.')[2] != 'data_root':
            continue
        for path in _paths(value):
            if _absent(path) and not _fetches(config, options):
                raise FileNotFoundError(f'{key}: {missing(path)}')


def not_a_checkpoint(given: Mapping[str, Any]) -> str | None:
    """Say what was given as a checkpoint, if it is there and is none."""
    path = given.get('checkpoint')
    if not isinstance(path, str):
        return None
    place = Path(path).expanduser()
    if place.is_dir():
        inside = sorted(place.glob('*_[0-9]*.pth'), key=os.path.getmtime)
        if inside:
            return f'{path!r} is a folder: give a file, such as {inside[-1]}.'
        after = ', the folder after --data' if 'data' in given else ''
        return f'{path!r} is a folder; the checkpoint comes first{after}.'
    if place.suffix in CONFIGS and place.is_file():
        after = ' after --config' if 'config' in given else ' elsewhere'
        return f'{path!r} is no checkpoint; a config stands{after}.'
    return None


def flag_of(name: str) -> str:
    """Return the option of a parameter."""
    return f'--{name.rstrip("_").replace("_", "-")}'


def _paths(value: Any) -> Iterator[str]:
    values = value if isinstance(value, Sequence) else ()
    for path in [value] if isinstance(value, str) else values:
        if isinstance(path, str):
            yield path


def _absent(path: str) -> bool:
    """Whether a path does not exist; URLs, patterns and no path do."""
    if not path or '://' in path or re.search(r'[*?{\[]', path):
        return False
    return not Path(path).expanduser().exists()


def _require_own_data(config: str, options: Mapping[str, Any]) -> None:
    """Check that the data of a training's config are there.

    Its text tells, unexecuted, if it names one folder and no option another.
    """
    roots = set[str]()
    for text in _texts(config):
        roots |= set(re.findall(r"""data_root\s*=\s*['"](.+?)['"]""", text))
    if len(roots) != 1 or any('data' in key for key in options):
        return
    (root,) = roots
    if _absent(root) and not _fetches(config, options):
        raise FileNotFoundError(
            f'{config}: its data_root {missing(root)} Say where your images '
            'are: --cfg-options train_dataloader.dataset.data_root=DIR.'
        )


def _fetches(config: Any, options: Mapping[str, Any]) -> bool:
    """Whether a data set may fetch its files; its text tells, unexecuted."""
    if FETCHING.search(str(dict(options))) or not isinstance(config, str):
        return True
    return any(FETCHING.search(text) for text in _texts(config))


def _texts(config: str) -> Iterator[str]:
    """Yield the text of a config and of all that it builds on."""
    waiting, seen = [resolve_config(config)], set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        text = path.read_text(encoding='utf-8', errors='replace')
        yield text
        for base in re.findall(r"""['"]([^'"\n]+\.(?:py|json|ya?ml))""", text):
            place = path.parent / base
            try:
                found = resolve_config(base) if '::' in base else place
            except FileNotFoundError:
                continue  # Said when the config is read.
            if found.is_file() and found not in seen:
                waiting.append(found)
