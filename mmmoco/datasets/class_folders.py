"""mmpretrain's class folders, without those that tools leave behind."""

import logging
from functools import wraps
from typing import Any

from mmengine.logging import print_log

from .files import hidden as is_hidden


def skip_hidden() -> None:
    """Let mmpretrain pass over what begins with a dot, and count it.

    ``.ipynb_checkpoints`` would become a class and shift the numbers of all
    that follow; what lies in such a folder within a class, one of its
    images.
    """
    from mmpretrain.datasets import custom

    if hasattr(custom.find_folders, '__wrapped__'):
        return

    @wraps(custom.find_folders)
    def find_folders(*args: Any, **kwargs: Any) -> Any:
        names, _ = find_folders.__wrapped__(*args, **kwargs)
        kept = [name for name in names if not is_hidden(name)]
        hidden = sorted(set(names) - set(kept))
        if hidden:
            root = args[0] if args else kwargs.get('root')
            _say(f'{len(hidden)} folders of {str(root)!r}', hidden[0])
        return kept, {name: i for i, name in enumerate(kept)}

    @wraps(custom.get_samples)
    def get_samples(*args: Any, **kwargs: Any) -> Any:
        samples, empty = get_samples.__wrapped__(*args, **kwargs)
        root = str(args[0] if args else kwargs['root'])
        hidden = [s for s in samples if _lies_hidden(_path(s), root)]
        if hidden:
            _say(f'{len(hidden)} images of {root!r}', _path(hidden[0]))
            left = set(map(_path, hidden))
            samples = [s for s in samples if _path(s) not in left]
        return samples, empty

    custom.find_folders, custom.get_samples = find_folders, get_samples


def _path(sample: Any) -> str:
    return str(sample[0] if isinstance(sample, tuple) else sample)


def _lies_hidden(path: str, root: str) -> bool:
    inner = path.removeprefix(root)
    return any(map(is_hidden, inner.split('/')))


def _say(what: str, example: str) -> None:
    print_log(
        f'{what} are skipped: their names begin with a dot, as {example!r}.',
        logger='current',
        level=logging.WARNING,
    )
