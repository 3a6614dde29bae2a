from typing import NamedTuple

from .key_table import Part


class Format(NamedTuple):
    """A layout of checkpoints, described by its keys.

    Attributes:
        name: What ``--from`` takes.
        title: What the report calls it.
        signs: Regular expressions; each must fit the beginning of a key.
        parts: Modules and their place in ours; the first that fits decides.
        never: Regular expressions of keys that only other layouts have.
        left: Regular expressions of keys that have no place here, each with
            the reason.
        queue: Of several queues the one that answers ours.
        imagenet: The authors' networks see images normalised as ImageNet's,
            RGB. Left out where one layout holds several conventions.
        published: Heads, strides and norms are those of the networks that
            :mod:`.anatomy` describes, which the authors published.
    """

    name: str
    title: str
    signs: tuple[str, ...]
    parts: tuple[Part, ...]
    never: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    queue: int = 0
    imagenet: bool = False
    published: bool = True


CLASSIFIER = 'the classifier of another task'
EMA_STEPS = 'a counter of the moving average; m follows the schedule here'
DUPLICATE = 'the same tensors once more'
OTHER_TASK = 'the heads of another task'
