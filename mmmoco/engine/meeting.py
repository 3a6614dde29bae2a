"""Where the processes of a run find each other."""

import os
from contextlib import suppress
from typing import Any

import torch.distributed as torch_dist

#: Names the private folder in which the processes of one machine meet; it is
#: set by tools/launch.sh.
FOLDER = 'MMMOCO_MEETING'


#: The store in which the processes met; None if mmengine did it.
_store: Any = None


def tell_all(what: str) -> None:
    """Leave a word where the processes met."""
    if _store is not None:
        with suppress(RuntimeError):  # It ended with its process.
            _store.set(what, 'yes')


def was_told(what: str, otherwise: bool = False) -> bool:
    """Whether any process left this word; ``otherwise`` if none can know."""
    if _store is not None:
        with suppress(RuntimeError):
            return bool(_store.check([what]))
    return otherwise


def meet() -> dict[str, Any]:
    """Return what ``init_process_group`` takes: store, rank, processes.

    What others put into a store may be unpickled. On one machine it is a file
    in a folder of this user; else torchrun's port, open to the network.
    """
    # torchrun may give its restarted processes the store in which the
    # addresses of those that died still stand.
    attempt = f'attempt_{os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")}'
    folder = os.environ.get(FOLDER)
    c10d: Any = torch_dist  # Its types do not export what follows.
    if folder:
        rank, size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
        store = c10d.FileStore(os.path.join(folder, attempt), size)
    else:
        shared, rank, size = next(c10d.rendezvous('env://'))
        store = c10d.PrefixStore(attempt, shared)
    global _store
    _store = store
    return dict(store=store, rank=rank, world_size=size)
