"""mmpretrain's class folders, without those that tools leave behind."""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

from mmmoco.messages import log_warning
from mmmoco.private_names import Shared, replaced


@contextmanager
def _skip() -> Iterator[None]:
    """Let mmpretrain pass over what begins with a dot, and count it.

    ``.ipynb_checkpoints`` would become a class and shift the numbers of all
    that follow; what lies in such a folder within a class, one of its
    images.
    """
    # It prints that a library is missing which nobody asked for.
    with redirect_stdout(StringIO()):
        from mmpretrain.datasets import custom

    all_folders, all_samples = custom.find_folders, custom.get_samples

    def find_folders(*args: Any, **kwargs: Any) -> Any:
        names, _ = all_folders(*args, **kwargs)
        kept = [name for name in names if not _is_hidden(name)]
        hidden = sorted(set(names) - set(kept))
        if hidden:
            root = args[0] if args else kwargs.get('root')
            _say(f'{len(hidden)} folders of {str(root)!r}', hidden[0])
        return kept, {name: i for i, name in enumerate(kept)}

    def get_samples(*args: Any, **kwargs: Any) -> Any:
        samples, empty = all_samples(*args, **kwargs)
        root = str(args[0] if args else kwargs['root'])
        hidden = [s for s in samples if _lies_hidden(_path(s), root)]
        if hidden:
            _say(f'{len(hidden)} images of {root!r}', _path(hidden[0]))
            left = set(map(_path, hidden))
            samples = [s for s in samples if _path(s) not in left]
        return samples, empty

    with (
        replaced(custom, 'find_folders', find_folders),
        replaced(custom, 'get_samples', get_samples),
    ):
        yield


#: While it is entered, mmpretrain's data sets pass over hidden files.
hidden_skipped = Shared(_skip)


def _is_hidden(name: str) -> bool:
    return name.startswith('.')


def _path(sample: Any) -> str:
    return str(sample[0] if isinstance(sample, tuple) else sample)


def _lies_hidden(path: str, root: str) -> bool:
    inner = path.removeprefix(root)
    return any(map(_is_hidden, inner.split('/')))


def _say(what: str, example: str) -> None:
    log_warning(
        f'{what} are skipped: their names begin with a dot, as {example!r}.'
    )
