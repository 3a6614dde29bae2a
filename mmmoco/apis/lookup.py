"""Configs and other files by their names: found, or the nearest ones named.

Nothing heavy is imported, so that a wrong path is said at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

from mmmoco.openmmlab import how_to_install

#: Packages whose configs ``package::path`` names.
PACKAGES = ('mmmoco', 'mmpretrain', 'mmdet', 'mmseg')

#: Names that configs had before, by what they are now: MIM finds a config by
#: the name of its file alone, so no two have the same.
RENAMED = {
    '_base_/models/mmc_digits': '_base_/models/mmc_vit-digits',
    '_base_/models/mocov2_digits': '_base_/models/mocov2_plain-conv-net',
    **{
        f'benchmarks/{name}': f'benchmarks/{name}_{name.split("/")[1]}'
        for name in (
            'classification/bigearthnet/features_mocov2_r50',
            'classification/eurosat/features_mocov2_r50',
            'classification/voc07/features_mocov2_r50',
            'mmdetection/lvis/mask-rcnn_r50-fpn_8xb2_2x',
        )
    },
}


def config_root() -> Path:
    """Return the folder of mmmoco's configs, installed or in a checkout."""
    package = Path(__file__).parents[1]
    for root in (package / '.mim' / 'configs', package.parent / 'configs'):
        if root.is_dir():
            return root
    raise FileNotFoundError(
        f'mmmoco in {str(package)!r} was installed without its configs. '
        'Install it again, from a checkout or from a wheel.'
    )


def list_configs(pattern: str = '') -> list[str]:
    """Return the names of the shipped configs.

    Args:
        pattern: Wildcards that the whole name must match (``'*v3*'``), or a
            regular expression that it must contain (``'v3_(r50|vit)'``).

    Returns:
        Names as ``get_model`` and ``mmmoco::NAME.py`` take them, sorted, for
        example ``'demo/mocov2_digits'``.

    Raises:
        ValueError: If the pattern is neither.
    """
    root = config_root()
    paths = (path.relative_to(root) for path in root.rglob('*.py'))
    names = sorted(path.with_suffix('').as_posix() for path in paths)
    names = [name for name in names if not name.startswith('_base_/')]
    if re.search(r'[*?]', pattern) and not re.search(
        r'[.^$()|+\\{}]', pattern
    ):
        return [name for name in names if fnmatchcase(name, pattern)]
    try:
        return [name for name in names if re.search(pattern, name)]
    except re.error as error:
        raise ValueError(
            f"{pattern!r} is neither wildcards, such as '*v3*', nor a regular "
            f'expression ({error}).'
        ) from error


def resolve_config(name: str) -> Path:
    """Return the file of a config.

    Args:
        name: A path, ``package::path`` (``mmdet::…``), or a name of
            :func:`list_configs`.

    Raises:
        FileNotFoundError: If there is none, with the nearest names.
    """
    if '::' in name:
        package, relative = name.split('::', 1)
        root = package_configs(package)
        candidates = [root / relative, root / f'{relative}.py']
    else:
        root, relative = config_root(), name
        candidates = [Path(name), root / name, root / f'{name}.py']
    if renamed := RENAMED.get(relative.removesuffix('.py')):
        candidates.append(root / f'{renamed}.py')
    for path in candidates:
        if path.is_file():
            return path
    known = list_configs()
    near = get_close_matches(Path(name).stem, known, n=3, cutoff=0.5)
    examples = near or [n for n in known if n.startswith(('demo/', 'moco'))]
    raise FileNotFoundError(
        f'There is no config {name!r}. Give a path, package::path, or a name '
        f'of mmmoco (for example {", ".join(examples[:3])}).'
    )


def package_configs(package: str) -> Path:
    """Return the folder of the configs of a package.

    Raises:
        FileNotFoundError: If it is not known, or not installed.
    """
    if package == 'mmmoco':
        return config_root()
    if package not in PACKAGES:
        raise FileNotFoundError(
            f'{package}:: is not known; use one of '
            f'{", ".join(p + "::" for p in PACKAGES)}.'
        )
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f'{package} is not installed: {how_to_install(package)}, or bash '
            'tools/setup.sh full in a checkout.'
        )
    return Path(spec.submodule_search_locations[0]) / '.mim' / 'configs'


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the name that is most like a word, if one is.

    >>> nearest('--bach-size', ['--batch-size', '--lr'])
    '--batch-size'
    """
    folded = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), folded, n=1, cutoff=0.7)
    return folded[near[0]] if near else None


def missing(path: str) -> str:
    """Return what is said of a path that does not exist.

    With a path that does and has nearly this name, or else the last of its
    folders that is there.
    """
    place = Path(path).expanduser()
    there = next(p for p in place.absolute().parents if p.is_dir())
    first, *rest = place.absolute().relative_to(there).parts
    try:
        near = nearest(first, os.listdir(there))
    except PermissionError:
        near = None
    if near and Path(there, near, *rest).exists():
        found = str(place.parents[len(rest)] / Path(near, *rest))
        return f'{path!r} does not exist; did you mean {found!r}?'
    return f'{path!r} does not exist; {str(there)!r} does.'
