from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from .key_table import Part


class Told(NamedTuple):
    """What values of tensors, not only their names, tell of a file.

    Attributes:
        notes: For the user.
        seen: How its network's images were normalised, where that is not as
            for the rest of the layout.
        num_heads: Of its attention.
    """

    notes: tuple[str, ...] = ()
    seen: Mapping[str, Any] | None = None
    num_heads: int | None = None


def as_they_are(
    weights: dict[str, Tensor], source: Mapping[str, Tensor]
) -> Told:
    """Finish a layout whose tensors need nothing but other names."""
    return Told()


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
        finish: Changes tensors by our names, in place, given also those of
            the file.
        split_qkv: Query, key and value stand apart, and are to be joined.
        license: Under which the authors publish weights of this layout, if
            its names are theirs alone.
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
    finish: Callable[[dict[str, Tensor], Mapping[str, Tensor]], Told] = (
        as_they_are
    )
    split_qkv: bool = False
    license: str | None = None


#: Where the terms stand of licences that the Hub has no identifier for.
LICENSE_LINKS = {
    'dinov3-license': 'https://ai.meta.com/resources/models-and-libraries/'
    'dinov3-license/'
}

CLASSIFIER = 'the classifier of another task'
EMA_STEPS = 'a counter of the moving average; m follows the schedule here'
DUPLICATE = 'the same tensors once more'
OTHER_TASK = 'the heads of another task'
MASK_TOKEN = 'the token of masked patches'
