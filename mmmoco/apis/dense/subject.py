"""What the evaluations of dense features share: images, model, record."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.device import get_device

from mmmoco.apis.cli import Settings, UsageError
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.from_checkpoint import config_of
from mmmoco.datasets.digit_scenes import DigitScenes
from mmmoco.engine.evaluation.preprocessing import compare_evaluation
from mmmoco.engine.results import append_result
from mmmoco.messages import log_info

from .features import (
    DenseFeatures,
    Layers,
    ModelFeatures,
    load_model,
    mean_colours,
)
from .object_masks import (
    CocoObjects,
    LabelObjects,
    ObjectMasks,
    PanopticObjects,
    SceneObjects,
)


class Images(NamedTuple):
    """Which images with masks; see the jobs for each field."""

    dataset: str
    annotations: str | None = None
    images: str | None = None
    split: str = 'val'
    min_area: int = 1
    stuff: bool = False
    limit: int | None = None

    def open(self) -> ObjectMasks:
        """Build the data set.

        Raises:
            UsageError: If something is missing.
        """
        if self.limit is not None and self.limit < 1:
            raise UsageError(f'--limit {self.limit}: must be at least 1.')
        data = self._all()
        data.min_area = max(1, self.min_area)
        data.entries = data.entries[: self.limit]
        return data

    def _all(self) -> ObjectMasks:
        name, labels = self.dataset, self.annotations
        if name == 'digits':
            return digit_scenes(self.split, self.limit or 300)
        if labels is None:
            raise UsageError(f'--dataset {name} needs --annotations.')
        if name in ('coco', 'panoptic'):
            if self.images is None:
                raise UsageError(f'--dataset {name} needs --images.')
            if name == 'coco':
                return CocoObjects(labels, self.images)
            return PanopticObjects(labels, self.images, self.stuff)
        if not Path(labels).is_dir():
            raise UsageError(
                f'--annotations {labels!r} is no folder; --dataset {name} '
                'takes the root of the data set.'
            )
        if name == 'voc':
            return LabelObjects.voc(labels, self.split)
        return LabelObjects.cityscapes(labels, self.split)


def digit_scenes(split: str, count: int) -> SceneObjects:
    """Return scenes of several digits, of the kind that demos train on.

    Canvas, contrast and noise are those of
    ``configs/_base_/datasets/digits.py``.

    Args:
        split: ``'train'`` or ``'val'``.
        count: Number of scenes.
    """
    scenes = DigitScenes(
        split=split,
        size=64,
        digits_per_image=(2, 4),
        num_scenes=count,
        seed=1,
        background=(30.0, 150.0),
        contrast=(60.0, 105.0),
        noise=(2.0, 6.0),
    )
    return SceneObjects(scenes)


class Subject(NamedTuple):
    """A checkpoint under evaluation.

    Attributes:
        cfg: Config of its model.
        checkpoint: File; None: random weights.
        folder: Where results go.
        eyes: How images are seen otherwise than in the training.
    """

    cfg: Config
    checkpoint: str | None
    folder: Path
    eyes: list[str]

    @classmethod
    def of(
        cls,
        config: str | Config | None,
        checkpoint: str | None,
        work_dir: str | None,
        cfg_options: Settings | None,
    ) -> Subject:
        """Read the config, and what the checkpoint tells about its images.

        Raises:
            UsageError: If there is neither.
        """
        if config is None:
            if checkpoint is None:
                raise UsageError('Give a checkpoint, or a --config.')
            config = config_of(checkpoint)
        cfg = load_config(config, cfg_options)
        name = Path(cfg.filename or 'evaluation').stem
        folder = Path(work_dir or f'work_dirs/{name}')
        if checkpoint and not work_dir:
            folder = Path(checkpoint).parent
        return cls(
            cfg, checkpoint, folder, compare_evaluation(cfg, checkpoint)
        )

    def model(self) -> Any:
        """Build the model with its weights."""
        return load_model(self.cfg, self.checkpoint).to(get_device())

    def image_size(self, dataset: str, size: int | None = None) -> int:
        """Return the side of the images: given, or the backbone's."""
        if size is not None or dataset == 'digits':
            return 64 if size is None else size
        side = self.cfg.model.backbone.get('img_size', 224)
        return int(side if isinstance(side, int) else side[0])

    def record(
        self,
        task: str,
        protocol: dict[str, Any],
        metrics: dict[str, float],
        seed: int | None = None,
    ) -> None:
        """Append figures to ``results.jsonl``."""
        append_result(
            str(self.folder),
            task=task,
            protocol=protocol,
            metrics=metrics,
            cfg=self.cfg,
            checkpoint=self.checkpoint,
            seed=seed,
            remarks={'eyes': self.eyes},
        )

    def say_written(self, files: str) -> None:
        """Log which files stand in the folder of results."""
        log_info(f'Written to {str(self.folder)!r}: {files}')


class Seen(NamedTuple):
    """A checkpoint, and images with masks; see :func:`jobs.see`."""

    subject: Subject
    images: Images
    data: ObjectMasks
    side: int
    batch_size: int
    features: str
    encoder: str

    def maps(self, layers: Layers = None) -> DenseFeatures:
        """Return the dense features of the model, or of colours."""
        model = self.subject.model()
        if self.features == 'model':
            return ModelFeatures(model, self.side, self.encoder, layers)
        patch = self.subject.cfg.model.backbone.get('patch_size', 16)
        return partial(
            mean_colours, model=model, size=self.side, patch_size=patch
        )

    def protocol(self) -> dict[str, Any]:
        """Return what figures depend on, for ``results.jsonl``."""
        return {
            'dataset': self.images.dataset,
            'annotations': self.images.annotations,
            'split': self.images.split,
            'size': self.side,
            'min_area': self.images.min_area,
            'features': self.features,
            'encoder': self.encoder,
            'weights': 'checkpoint' if self.subject.checkpoint else 'random',
        }
