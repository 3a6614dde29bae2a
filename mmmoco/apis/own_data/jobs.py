"""From own labels to the config of a downstream training: the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from mmmoco.apis.process import tidy

Task = Literal['det', 'inst', 'seg', 'cls', 'linear']
Places = Annotated[Sequence[str], {'metavar': 'PATH'}]


@dataclass(frozen=True)
class OwnConfig:
    """A config that was written for own data.

    Attributes:
        path: Of the config.
        model: What is trained, in words.
        classes: Their names, by number.
        remarks: What was found in the data, and chosen.
        files: What was written beside the config.
    """

    path: str
    model: str
    classes: tuple[str, ...]
    remarks: tuple[str, ...]
    files: tuple[str, ...]

    def __str__(self) -> str:
        notes = [f'  {remark}.' for remark in self.remarks]
        written = [f'Beside it: {", ".join(self.files)}'] if self.files else []
        return '\n'.join(
            [
                f'{self.path}: {self.model}, {len(self.classes)} classes',
                *notes,
                *written,
                f'Next: mmmoco train {self.path}',
            ]
        )


@tidy
def transfer_config(
    task: Annotated[Task, {'metavar': 'TASK'}],
    *,
    train: Places,
    val: Places,
    init: Annotated[str, {'metavar': 'CKPT|supervised|random'}] = 'random',
    classes: str | None = None,
    mask_suffix: str | None = None,
    reduce_zero_label: bool = False,
    image_size: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    gpus: int = 1,
    out: Annotated[str, {'metavar': 'FILE', 'short': '-o'}] = 'my_config.py',
) -> OwnConfig:
    """Write the config of a detector, segmentor or classifier for own data.

    A plain config of mmdet, mmseg or mmpretrain: their own tools run it, and
    so does the train command. Its classes are read from the labels.

    Args:
        task: det (Faster R-CNN), inst (Mask R-CNN), seg (FCN-16s; UPerNet on
            a ViT), cls (all of the network is trained) or linear (a linear
            classifier on the frozen backbone).
        train: Of det and inst a COCO file and the folder of its images; of
            seg the folder of the masks and that of the images; of cls and
            linear the folder with a folder for each class.
        val: The same, to validate and test.
        init: What the backbone starts from: a checkpoint, whose backbone the
            model then has, or ResNet-50 with the weights of torchvision, or
            without any.
        classes: Names, separated by commas: of det and inst those that are
            wanted, of seg those of the values 0, 1, ….
        mask_suffix: Of seg: how the names of masks end, _labelTrainIds.png.
        reduce_zero_label: Of seg: 0 is no class; 1 becomes the first.
        image_size: Shorter side of det and inst, crop of the others.
        batch_size: Images of a GPU (2; cls and linear 32 or 64).
        epochs: Passes over the images; default: by the number of images,
            between the published schedules.
        gpus: Processes that the run is meant for.
        out: Where to write it; what is there stays.

    Returns:
        The config's path, its classes, and what was found in the data.

    Raises:
        FileExistsError: If there is a file already.
        FileNotFoundError: If labels, images or checkpoint do not exist.
        ImportError: If mmdet or mmseg are missing.
        ValueError: If the labels cannot be trained on, or an option makes no
            sense.

    Example:
        mmmoco transfer-config det --train train.json images --val val.json
        images --init epoch_200.pth -o my_detector.py
    """
    options = dict(locals())
    from .make import Wishes, make

    return OwnConfig(*make(Wishes(**options)))
