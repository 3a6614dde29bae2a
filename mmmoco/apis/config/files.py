"""Reading configs, ours and those of the other libraries."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mmengine.config import Config

from mmmoco import restarts
from mmmoco.apis.lookup import PACKAGES, package_configs, resolve_config
from mmmoco.private_names import base_of, bases_found_by

from .device_views import move_views
from .keys import check_keys, check_option_keys, drop_leftovers
from .multiband import settle_bands
from .option_values import check_option, check_values
from .view_size import KEY, resize_views

KINDS = ('.py', '.json', '.yaml', '.yml')


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
        config: As for :func:`mmmoco.apis.lookup.resolve_config`; or one that
            was read before, of which a copy is made.
        options: Dotted keys and values, as from ``--cfg-options``.

    Raises:
        FileNotFoundError: If the config does not exist.
        KeyError: If a key is taken by nothing; says which was meant.
        ValueError: If it, or a file that it builds on, is no valid Python,
            or a value makes no sense.
    """
    cfg = read_config(config) if isinstance(config, str) else deepcopy(config)
    options = dict(options or {})
    size = options.pop(KEY, cfg.pop(KEY, None))
    if size is not None:
        # Before the other options, which may change single views.
        resize_views(cfg, size)
    before = cfg
    if options:
        for key, value in options.items():
            check_option(cfg, key, value)
        before = deepcopy(cfg)
        cfg.merge_from_dict(options)
        drop_leftovers(cfg, options)
    settle_bands(cfg)
    check_values(cfg)
    check_option_keys(cfg, before, options)
    check_keys(cfg, options)
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
    return restarts.usual_work_dir(cfg.filename)


def read_config(name: str) -> Config:
    """Read a config as it stands; what is wrong with it is not told.

    Args:
        name: As for :func:`mmmoco.apis.lookup.resolve_config`.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it, or a file that it builds on, is no valid Python.
    """
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


def _base_path(base: str, filename: str) -> tuple[str, str | None]:
    """Return the file of a ``_base_`` and the scope it brings.

    mmengine looks packages up by the name of their distribution: it does not
    know ours, the one of mmsegmentation that it knows is not the maintained
    one, and it wants a folder in every path. Here the import name decides.
    """
    package, found, relative = base.partition('::')
    if not found or package not in PACKAGES:
        return base_of(base, filename)
    if package == 'mmmoco':
        return str(resolve_config(base)), None
    return str(package_configs(package) / relative), package
