"""From a folder of images to a backbone: the jobs ``plan`` and ``pretrain``.

Nothing of it is a second way to train: a config is written, and trained.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from mmmoco.apis.cli import with_options_of
from mmmoco.apis.process import tidy

from .wishes import Method, Order, Wishes

if TYPE_CHECKING:
    from .plan import Plan
    from .pretrain import Pretrained

Folder = Annotated[str, {'metavar': 'DATA'}]
Weights = Annotated[str | None, {'metavar': 'CKPT'}]
Margin = Annotated[float | bool, {'metavar': 'MARGIN', 'type': float}]
Patterns = Annotated[Sequence[str], {'metavar': 'PATTERN'}]


def plan(
    data: Folder,
    *,
    init: Weights = None,
    allow_drop: Margin = False,
    method: Method | None = None,
    backbone: Annotated[str | None, {'metavar': 'NAME'}] = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    m: float | None = None,
    queue: int | None = None,
    epochs: int | None = None,
    hours: float | None = None,
    gpus: int = 1,
    work_dir: str | None = None,
    seed: int = 0,
    include: Patterns = (),
    exclude: Patterns = (),
    order: Order = 'auto',
) -> Plan:
    """Write a pre-training config for a folder of images; train nothing.

    It looks at the images and the hardware, measures ten steps, and writes
    every choice with its reason: in less than two minutes.

    Args:
        data: Folder of images, at any depth; class folders are recognised.
        init: Go on from the backbone in this file (of torchvision, timm,
            DINO, MoCo and others, see mmmoco import): its network is found,
            heads are warmed up before it learns, rates are low, and the run
            stops if it loses what it knew.
        allow_drop: With --init, percentage points that k-NN may fall below
            the start (5; without class folders 60 of the neighbours that
            images had there); without a number nothing stops the run.
        method: Default: by the backbone.
        backbone: Name of timm or mmpretrain, such as resnet50 or
            vit_small_patch16_224; default: resnet50, on a CPU resnet18.
        image_size: Side of the views in pixels; default: by the images, on a
            CPU 96 or 128.
        batch_size: Images of an optimizer step, of all GPUs together.
        lr: Learning rate at this batch; default: the recipe's, scaled.
        m: Weight of the old key parameters (0.99, 0.999).
        queue: Number of stored keys; default: by the number of images.
        epochs: How long, in passes over the images.
        hours: How long, in all; default: one hour on a CPU, 200 epochs on a
            GPU.
        gpus: Processes that the run is meant for, each with a GPU; pretrain
            itself starts one.
        work_dir: For all that is written (work_dirs/NAME of data).
        seed: Of the run.
        include: Take only files whose path below DATA, or a name in it, fits
            one of these ('*_image.tif').
        exclude: Leave out files that fit one of these ('*_mask.tif', masks).
        order: How files of bands store them, where a file does not tell.

    Returns:
        The config's path and what was chosen.

    Raises:
        FileNotFoundError: If there are no images.
        OSError: If they cannot be read.
        ValueError: If something does not fit, or the time is too short.

    Example:
        mmmoco plan photos --hours 8 --backbone vit_small_patch16_224
    """
    wishes = _wishes(locals())
    wishes.check()
    return _plan(wishes)


@with_options_of(plan)
def pretrain(data: Folder, **options: Any) -> Pretrained:
    """Make a backbone from a folder of images: plan, train, judge, export.

    The plan is a config in WORK_DIR/plan; it is trained as the train command
    does. With class folders k-NN judges the network before and after. The
    backbone is exported to WORK_DIR/export. What was stopped goes on when the
    same command is given again.

    Args:
        data: Folder of images, at any depth; class folders are recognised.
        options: Arguments of :func:`plan`.

    Returns:
        Where the files are, and how good the backbone is.

    Raises:
        FileNotFoundError: If there are no images.
        OSError: If they cannot be read.
        ValueError: If something does not fit, or the time is too short.

    Example:
        mmmoco pretrain photos --hours 8
    """
    wishes = _wishes({'data': data, **options})
    wishes.check(goes_on=True)
    if wishes.gpus > 1:
        raise ValueError(
            f'--gpus {wishes.gpus}: pretrain starts one process. mmmoco plan '
            'writes a config for several, and says how it is trained.'
        )
    return _pretrain(wishes)


def _wishes(options: dict[str, Any]) -> Wishes:
    """Return what was said; torch is not needed to check it."""
    plain = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in options.items()
    }
    return Wishes(**plain)


@tidy
def _plan(wishes: Wishes) -> Plan:
    from .plan import make_plan

    return make_plan(wishes)


@tidy
def _pretrain(wishes: Wishes) -> Pretrained:
    from .pretrain import make_backbone

    return make_backbone(wishes)
