"""What mmengine keeps by name for a whole process."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

KINDS = (MMLogger, MessageHub, Visualizer, DefaultScope)


@contextmanager
def own_instances() -> Iterator[None]:
    """Forget the loggers, scopes and the like that were made inside.

    The next run of this process then starts as the first one did. After an
    error they stay: its message belongs in the log of its run.
    """
    before = [dict(kind._instance_dict) for kind in KINDS]
    yield
    for kind, instances in zip(KINDS, before, strict=True):
        kind._instance_dict.clear()
        kind._instance_dict.update(instances)
