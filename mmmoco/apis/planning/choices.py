"""Every choice of a pre-training, with its reason.

Grounded in the published recipes: the figures in the reasons are theirs.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from .backbones import Backbone, find_backbone
from .images import Images
from .machine import Machine
from .start import Start
from .wishes import Method, Wishes

#: Images → largest queue: up to a third of the data, so that an image rarely
#: meets its own older keys (lightly-train's steps).
_QUEUES = {
    50: 16, 100: 32, 250: 64, 500: 128, 1_000: 256, 2_000: 512, 4_000: 1024,
    10_000: 2048, 20_000: 4096, 40_000: 8192, 60_000: 16384, 200_000: 32768,
}  # fmt: skip
_LARGEST_QUEUE = 65536
#: MoCo's own small-scale recipes end below, ImageNet's begins above.
_MANY = 100_000
#: With the backbone frozen, at most: DINOv3's authors say that so many do.
_WARM = 1000
#: Of a network that goes on: its rate beside that of a beginner, and of each
#: layer beside the next one.
_LOWER, BY_LAYER = 0.1, 0.9
#: Percentage points: of k-NN, and of neighbours that are as they were.
_MARGINS = {'KNN': 5.0, 'NeighbourAgreement': 60.0}
#: Images whose neighbours are watched.
WATCHED = 2000
#: Iterations from which keys may move as slowly as on ImageNet.
_LONG = 50_000


@dataclass
class Choices:
    """What the config will say.

    Attributes:
        images, machine, wishes: What it rests on.
        method, backbone, image_size: The network and what it sees.
        micro_batch: Images of one process in one forward.
        accumulation: Forwards of one optimizer step.
        splits: Parts of SplitBN; 0: none.
        queue: Keys; 0: the negatives are those of the batch.
        exclude_same_image: Whether keys of the query's image are left out.
        optimizer: Config.
        m, temperature: As in the config.
        length, by_epoch: Of the training.
        warmup: In the same unit.
        evaluated: Labelled images that k-NN takes, of bank and queries.
        evaluations: How often.
        why: Reasons by name.
        remarks: Warnings.
        start: The weights to go on from, if there are any.
    """

    images: Images
    machine: Machine
    wishes: Wishes
    method: Method
    backbone: Backbone
    image_size: int
    micro_batch: int
    accumulation: int = 1
    splits: int = 0
    queue: int = 0
    exclude_same_image: bool = False
    optimizer: dict[str, Any] = field(default_factory=dict)
    m: float = 0.99
    temperature: float = 0.2
    length: int = 1
    by_epoch: bool = True
    warmup: int = 0
    evaluated: tuple[int, int] = (0, 0)
    evaluations: int = 2
    why: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    start: Start | None = None

    @property
    def many(self) -> bool:
        """Whether recipes for ImageNet hold, rather than those for CIFAR."""
        return len(self.images.paths) >= _MANY

    @property
    def batch(self) -> int:
        """Images of one optimizer step."""
        return self.micro_batch * self.accumulation * self.wishes.gpus

    @property
    def warm(self) -> int:
        """Iterations that the heads learn alone."""
        return min(_WARM, self.iterations // 10) if self.start else 0

    @property
    def guard(self) -> tuple[str, float | None]:
        """What is held against the start, and by how much it may fall."""
        name = 'KNN' if self.images.labelled else 'NeighbourAgreement'
        asked = self.wishes.allow_drop
        if asked is True:
            return name, None
        if asked is not False:
            return name, asked
        margin = _MARGINS[name]
        if self.images.labelled:  # Two standard errors of a share.
            margin = max(margin, round(100 / math.sqrt(self.evaluated[1]), 1))
        return name, margin

    @property
    def per_epoch(self) -> int:
        """Iterations (forwards of one process) of an epoch."""
        each = self.micro_batch * self.wishes.gpus
        return max(1, len(self.images.paths) // each)

    @property
    def iterations(self) -> int:
        """Of the whole training."""
        return self.length * (self.per_epoch if self.by_epoch else 1)

    @property
    def length_text(self) -> str:
        """The length in the unit that is counted, and in the other one."""
        if self.by_epoch:
            return f'{self.length:,} epochs ({self.iterations:,} iterations)'
        epochs = self.iterations / self.per_epoch
        said = f'{epochs:.3g}' if epochs < 100 else f'{epochs:,.0f}'
        return f'{self.length:,} iterations ({said} epochs)'


def choose(
    images: Images,
    machine: Machine,
    wishes: Wishes,
    most: int | None = None,
    start: Start | None = None,
) -> Choices:
    """Choose all that needs no measurement.

    Args:
        images: What is there.
        machine: What it is trained on.
        wishes: What the user has said.
        most: Images that the memory has room for, in one forward.
        start: The weights to go on from.

    Raises:
        ValueError: If wishes do not fit each other, or the images.
    """
    why: dict[str, str] = {}
    size, why['image_size'] = wishes.pick(
        'image_size', *_image_size(images, machine)
    )
    usual = 'resnet50', 'the network of the papers'
    if machine.on_cpu:
        usual = 'resnet18', 'a small network for a CPU'
    if start and not wishes.backbone:
        size = start.fitting(size, asked=wishes.image_size is not None)
        backbone = start.backbone(images.channels, size)
        why['backbone'] = f'that of {start.source}, to go on from'
    else:
        name, why['backbone'] = wishes.pick('backbone', *usual)
        backbone = find_backbone(name, images.channels, size)
    method, why['method'] = wishes.pick('method', *_method(backbone))
    if method in ('mocov1', 'densecl') and backbone.pooled:
        raise ValueError(
            f'--method {method} takes a map of pixels, and {backbone.name} '
            'gives vectors: take mocov2 or mocov3.'
        )
    batch, why['batch'] = _batch(images, machine, wishes, method)
    chosen = Choices(
        images, machine, wishes, method, backbone, size, batch,
        remarks=[*images.remarks, *(start.remarks if start else ())],
        why=why,
        start=start,
    )  # fmt: skip
    if most:
        _fit(chosen, most)
    _norm(chosen)
    _queue(chosen)
    _temperature(chosen)
    _optimizer(chosen)
    count = len(images.paths)
    if count < 1000:
        chosen.remarks.append(
            f'{count} images are few: what is learnt holds for them alone; '
            'more of them help most'
        )
    return chosen


def _image_size(images: Images, machine: Machine) -> tuple[int, str]:
    side = f'the images have {images.side} pixels at their shorter side'
    if machine.on_cpu:
        small = 96 if images.side < 256 else 128
        return small, f'small, for a CPU; {side}'
    fit = (size for size in (224, 128) if images.side >= 0.7 * size)
    return next(fit, 96), side


def _method(backbone: Backbone) -> tuple[Method, str]:
    if backbone.is_vit:
        return 'mocov3', 'made for vision transformers'
    if backbone.batch_norm and not backbone.takes_norm:
        return 'mocov3', (
            'its BatchNorm cannot be split on one device, and need not be'
        )
    return 'mocov2', 'its queue gives many negatives at any batch'


def _batch(
    images: Images, machine: Machine, wishes: Wishes, method: Method
) -> tuple[int, str]:
    """Return the images of a step, of one process."""
    count = len(images.paths)
    if count < 2 * wishes.gpus:
        raise ValueError(
            f'--gpus {wishes.gpus}: there are {count} images only, and each '
            'GPU needs two.'
        )
    if wishes.batch_size:
        each, rest = divmod(wishes.batch_size, wishes.gpus)
        if rest or each < 2:
            raise ValueError(
                f'--batch-size {wishes.batch_size} is that of all '
                f'{wishes.gpus} GPUs together: take a multiple, at least 2 '
                'images for each.'
            )
        if wishes.batch_size > count:
            raise ValueError(
                f'--batch-size {wishes.batch_size}: there are {count} images '
                'only; take at most as many.'
            )
        return each, 'as asked'
    usual, why = 64, 'what two cores do in a second or two'
    if not machine.on_cpu:
        usual, why = 256, 'as published'
        if method == 'mocov3':
            usual, why = 1024, 'the negatives are those of the batch'
        usual = max(32, usual // wishes.gpus)
    # A power of two, which SplitBN's parts divide.
    most = 1 << (count.bit_length() - 1)
    # At least four steps an epoch, where there are few images.
    few = max(4, most // 4) // wishes.gpus
    if few < usual:
        return max(2, few), f'small, for {count} images'
    return usual, why


def _fit(chosen: Choices, most: int) -> None:
    """Take fewer images at once, where the memory has no room for more."""
    if chosen.micro_batch <= most:
        return
    while chosen.micro_batch > most:
        chosen.micro_batch //= 2
        # The negatives of mocov3 are those of one forward: nothing to gather.
        chosen.accumulation *= 1 if chosen.method == 'mocov3' else 2
    chosen.why['batch'] += (
        f'; {chosen.micro_batch} at once, as many as the memory has room for'
    )


def _norm(chosen: Choices) -> None:
    """Keep BatchNorm from giving the positive away on one process."""
    backbone, batch = chosen.backbone, chosen.micro_batch
    if not backbone.batch_norm or chosen.method == 'mocov3':
        return
    if chosen.wishes.gpus > 1:
        chosen.why['norm'] = 'several processes shuffle the keys (ShuffleBN)'
        return
    parts = [n for n in (8, 4, 2) if batch % n == 0 and batch // n >= 2]
    large = [n for n in parts if batch // n >= 16]
    if not parts or not backbone.takes_norm:
        why = f'a batch of {batch} has no even parts'
        if parts:
            why = f'{backbone.name} takes no other BatchNorm'
        chosen.remarks.append(
            f'{why}: nothing keeps BatchNorm from giving the positive away '
            'on one process; --method mocov3 has no such leak'
        )
        return
    chosen.splits = large[0] if large else parts[-1]
    chosen.why['norm'] = (
        'on one process BatchNorm would give the positive away: parts of '
        f'{batch // chosen.splits} images take the place of GPUs'
    )


def _queue(chosen: Choices) -> None:
    wishes, count = chosen.wishes, len(chosen.images.paths)
    if chosen.method == 'mocov3':
        if wishes.queue:
            raise ValueError(
                f'--queue {wishes.queue}: mocov3 has none, its negatives are '
                'those of the batch; take --method mocov2.'
            )
        return
    fit = (size for most, size in _QUEUES.items() if count < most)
    chosen.queue, chosen.why['queue'] = wishes.pick(
        'queue',
        max(next(fit, _LARGEST_QUEUE), chosen.batch),
        f'for {count:,} images; ImageNet has 65,536',
    )
    if chosen.queue < chosen.batch:
        raise ValueError(
            f'--queue {wishes.queue}: one step of {chosen.batch} images '
            'brings more keys; take at least as many.'
        )


def _shorten_queue(chosen: Choices, steps: int) -> None:
    """Let the queue be full after a tenth of the steps; look at the data."""
    if not chosen.queue:
        return
    room = max(4 * chosen.batch, steps * chosen.batch // 10)
    if not chosen.wishes.queue and chosen.queue > room:
        chosen.queue = 1 << (room.bit_length() - 1)
        chosen.why['queue'] = 'full soon, since the training is short'
    chosen.exclude_same_image = 2 * chosen.queue > len(chosen.images.paths)
    if chosen.exclude_same_image:
        chosen.why['queue'] += "; an image's own keys are left out"


def _temperature(chosen: Choices) -> None:
    small_v2 = 0.1, "as MoCo's authors take on CIFAR-10"
    v2 = (0.2, 'as published') if chosen.many else small_v2
    chosen.temperature, chosen.why['temperature'] = {
        'mocov1': (0.07, 'as published, for a linear head'),
        'mocov2': v2,
        'densecl': v2,
        'mocov3': (0.2, 'as published for a ViT, and for small batches'),
    }[chosen.method]


def _optimizer(chosen: Choices) -> None:
    """Choose optimizer and rate, scaled linearly to the batch."""
    v3, many = chosen.method == 'mocov3', chosen.many
    kind: dict[str, Any]
    # Who normalises over the batch is trained by SGD or LARS in all papers.
    if not chosen.backbone.batch_norm and v3 and many:
        kind = dict(type='AdamW', lr=1.5e-4, weight_decay=0.1)
        why = 'as MoCo v3 has it'
    elif not chosen.backbone.batch_norm:
        kind = dict(type='AdamW', lr=5e-4, weight_decay=0.05)
        why = 'of small-scale recipes'
    elif v3:
        kind = dict(type='LARS', lr=0.3, momentum=0.9, weight_decay=1e-6)
        why = 'as MoCo v3 has it for a ResNet'
    elif many:
        kind = dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4)
        why = 'as published'
    else:
        kind = dict(type='SGD', lr=0.12, momentum=0.9, weight_decay=5e-4)
        why = 'of small-scale recipes (CIFAR-10)'
    if chosen.start:
        kind['lr'] *= _LOWER
        why = f'a tenth of the usual; {BY_LAYER} of it from layer to layer'
    base, batch = kind['lr'], chosen.batch
    kind['lr'], chosen.why['lr'] = chosen.wishes.pick(
        'lr',
        float(f'{base * batch / 256:.3g}'),
        f'{base:g} × batch {batch} / 256, {why}',
    )
    chosen.optimizer = kind


def set_length(
    chosen: Choices, length: int, by_epoch: bool, reason: str
) -> None:
    """Set the length of the training, and what depends on it."""
    chosen.length, chosen.by_epoch = length, by_epoch
    chosen.why['length'] = reason
    steps = max(1, chosen.iterations // chosen.accumulation)
    _shorten_queue(chosen, steps)
    m, why = 0.99, 'the keys of a short training must keep up'
    if chosen.method == 'mocov3':
        why = 'rises to 1, as published'
    elif steps >= _LONG:
        m, why = 0.999, 'as published, for a long training'
    chosen.m, chosen.why['m'] = chosen.wishes.pick('m', m, why)
    chosen.why['warmup'] = 'no warm-up, as published; cosine to 0'
    if chosen.method == 'mocov3' or not chosen.backbone.batch_norm:
        chosen.warmup = min(length // 10, 40 if by_epoch else 5000)
        chosen.why['warmup'] = 'a tenth is warm-up, then cosine to 0'
