"""Finding and reading configs, ours and those of the other libraries."""

import inspect
import re
from collections.abc import Mapping
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config

import mmmoco
from mmmoco.private_names import base_of, bases_found_by
from mmmoco.registry import DATASETS

from .device_views import move_views
from .option_values import check_option, check_values

KINDS = ('.py', '.json', '.yaml', '.yml')
PACKAGES = ('mmmoco', 'mmpretrain', 'mmdet', 'mmseg')


def config_root() -> Path:
    """Return the folder of mmmoco's configs, installed or in a checkout."""
    package = Path(mmmoco.__file__).parent
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
        pattern: Regular expression that a name must contain.

    Returns:
        Names as ``get_model`` and ``mmmoco::NAME.py`` take them, sorted, for
        example ``'demo/mocov2_digits'``.
    """
    root = config_root()
    names = (
        path.relative_to(root).with_suffix('').as_posix()
        for path in root.rglob('*.py')
    )
    return sorted(
        name
        for name in names
        if not name.startswith('_base_/') and re.search(pattern, name)
    )


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
        root = _package_configs(package)
        candidates = [root / relative, root / f'{relative}.py']
    else:
        root = config_root()
        candidates = [Path(name), root / name, root / f'{name}.py']
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


def _package_configs(package: str) -> Path:
    if package == 'mmmoco':
        return config_root()
    if package not in PACKAGES:
        raise FileNotFoundError(
            f'{package}:: is not known; use one of '
            f'{", ".join(p + "::" for p in PACKAGES)}.'
        )
    from importlib.util import find_spec

    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        extra = {'mmdet': 'det', 'mmseg': 'seg'}.get(package, 'all')
        raise FileNotFoundError(
            f'{package} is not installed: pip install "mmmoco[{extra}]", or '
            'bash tools/setup.sh full in a checkout.'
        )
    return Path(spec.submodule_search_locations[0]) / '.mim' / 'configs'


def package_bases(*names: str) -> list[str]:
    """Return the files of ``package::path`` configs, for a ``_base_``.

    ``'mmseg::…'`` itself is found by :func:`load_config` only; other tools
    look for a distribution that the maintained line does not have.

    Args:
        names: As ``mmseg::_base_/models/fcn_r50-d8.py``.

    Raises:
        FileNotFoundError: If the package or a file does not exist.
    """
    return [str(resolve_config(name)) for name in names]


def load_config(
    config: str | Config, options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config by path or name, and apply options.

    Args:
        config: As for :func:`resolve_config`; or one that was read before,
            of which a copy is made.
        options: Dotted keys and values, as from ``--cfg-options``.

    Raises:
        FileNotFoundError: If the config does not exist.
        KeyError: If an option names no existing key (a typing error would
            otherwise be ignored), except below ``type``-less dicts.
        ValueError: If it, or a file that it builds on, is no valid Python,
            or a value makes no sense.
    """
    cfg = _read(config) if isinstance(config, str) else deepcopy(config)
    if options:
        for key, value in options.items():
            check_option(cfg, key, value)
        cfg.merge_from_dict(dict(options))
        for key in options:
            if key.endswith('dataset.type'):
                _drop_arguments(cfg, key.removesuffix('.type'), options)
    check_values(cfg)
    move_views(cfg)
    return cfg


def name_of(config: str | Config) -> str:
    """Return what messages call a config."""
    if isinstance(config, str):
        return config
    return config.filename or 'the config'


def usual_work_dir(cfg: Config) -> str:
    """Return the work dir of a config that names none.

    Raises:
        ValueError: If it was read from no file.
    """
    if not cfg.filename:
        raise ValueError('This config was read from no file: give a work_dir.')
    return f'work_dirs/{Path(cfg.filename).stem}'


def _read(name: str) -> Config:
    path = resolve_config(name)
    if path.suffix not in KINDS:
        raise ValueError(
            f'{str(path)!r}: a config ends in {", ".join(KINDS)}.'
        )
    try:
        with bases_found_by(_base_path):
            return Config.fromfile(str(path))
    except SyntaxError as error:
        raise ValueError(
            f'{str(path)!r}, or a file that it builds on, is no valid '
            f'Python: {error.msg} (line {error.lineno}).'
        ) from error


def _drop_arguments(
    cfg: Config, place: str, options: Mapping[str, Any]
) -> None:
    """Drop what the config gave to the data set that an option replaces.

    The pipeline and what the new one also takes stay, so that the type can
    be changed on the command line.
    """
    node: Any = cfg
    for part in place.split('.'):
        node = node[part]
    kind = DATASETS.get(node['type'])
    if kind is None:
        return
    parameters = inspect.signature(kind).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = {'type', *(p.name for p in parameters)}
    for name in [n for n in node if n not in known]:
        if f'{place}.{name}' not in options:
            del node[name]


def _base_path(base: str, filename: str) -> tuple[str, str | None]:
    """Return the file of a ``_base_`` and the scope it brings.

    mmengine looks packages up by the name of their distribution: it does not
    know ours, the one of mmsegmentation that it knows is not the maintained
    one, and it wants a folder in every path. Here the import name decides.
    """
    package, found, relative = base.partition('::')
    if not found or package not in PACKAGES:
        return base_of(base, filename)
    scope = None if package == 'mmmoco' else package
    return str(_package_configs(package) / relative), scope
