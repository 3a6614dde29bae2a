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
    error all but scopes stay: its message belongs in the log of its run.
    """
    before = {kind: dict(instances_of(kind)) for kind in KINDS}
    try:
        yield
    except BaseException:
        before = {DefaultScope: before[DefaultScope]}
        raise
    finally:
        for kind, kept in before.items():
            instances = instances_of(kind)
            for name in instances.keys() - kept.keys():
                for handler in getattr(instances[name], 'handlers', ()):
                    handler.close()  # Else every run keeps a file open.
            instances.clear()
            instances.update(kept)
