"""What mmengine keeps by name for a whole process."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from mmmoco.private_names import instances_of

KINDS = (MMLogger, MessageHub, Visualizer, DefaultScope)


@contextmanager
def own_instances() -> Iterator[None]:
    """Forget the loggers, scopes and the like that were made inside.

    The next run of this process then starts as the first one did. After an
    error they stay: its message belongs in the log of its run.
    """
    before = [dict(instances_of(kind)) for kind in KINDS]
    yield
    for name, logger in instances_of(MMLogger).items():
        if name not in before[0]:
            for handler in logger.handlers:
                handler.close()  # Else every run keeps a file open.
    for kind, instances in zip(KINDS, before, strict=True):
        instances_of(kind).clear()
        instances_of(kind).update(instances)
