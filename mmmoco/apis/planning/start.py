"""The network that a training goes on from, as its file tells it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmmoco.apis.config.from_checkpoint import config_of
from mmmoco.apis.exchange.import_checkpoint import read_foreign, write
from mmmoco.convert.anatomy import called
from mmmoco.convert.preprocessing import IMAGENET
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.functional import first_not_finite

from .backbones import Backbone, measured
from .wishes import LEAST, Wishes

_UNKNOWN = (
    '--init: the file does not tell how its images were normalised; as those '
    'of ImageNet, it is supposed'
)


@dataclass(frozen=True)
class Start:
    """A file of weights, and the network that they are of.

    Attributes:
        source: As it was given.
        file: With our names: itself, or what was made of it.
        config: Of the backbone; empty if --backbone names it.
        mean, std: That its images were normalised by, in grey levels.
        title: What the network is called.
        remarks: What is not known of it.
    """

    source: str
    file: str
    config: dict[str, Any]
    mean: list[float]
    std: list[float]
    title: str
    remarks: tuple[str, ...] = ()

    def fitting(self, size: int, asked: bool) -> int:
        """Return a side of the views that the network takes.

        Raises:
            ValueError: If one was asked for that it does not.
        """
        patch = self.config.get('patch_size', 1)
        if 'img_size' not in self.config or not isinstance(patch, int):
            return size
        least = -(-LEAST['image_size'] // patch)
        near = max(least, round(size / patch)) * patch
        if asked and near != size:
            raise ValueError(
                f'--image-size {size} is no multiple of the patches of '
                f'{patch} pixels that {self.source} has: take {near}.'
            )
        return near

    def backbone(self, channels: int, size: int) -> Backbone:
        """Return its network, for images of a size.

        Raises:
            ValueError: If it takes other images.
        """
        config = dict(self.config)
        own = config.get('in_channels', 3)
        if own != channels:
            raise ValueError(
                f'--init {self.source}: its network takes images of {own} '
                f'channels, and these have {channels}.'
            )
        # Which resizes its positions to every image keeps those of the file.
        if 'img_size' in config and not config.get('dynamic_img_size'):
            config['img_size'] = size
        return measured(
            f'--init {self.source}', self.title, config, channels, size
        )


def read_start(wishes: Wishes) -> Start | None:
    """Read what ``--init`` names; a foreign file is kept by our names.

    Raises:
        CheckpointError: If it cannot be read, or is not whole.
        ValueError: If it does not tell its network.
    """
    if wishes.init is None:
        return None
    source = str(Path(wishes.init).expanduser())
    file, remarks = str(Path(source).resolve()), []
    try:
        cfg = config_of(source)
    except (CheckpointError, ValueError):
        # None of ours, or one that does not tell.
        if wishes.backbone and any(
            name.startswith('backbone.')
            for name in checkpoint_io.read_weights(source)
        ):
            known = list(IMAGENET['mean']), list(IMAGENET['std'])
            return Start(source, file, {}, *known, '', (_UNKNOWN,))
        report = read_foreign(source)
        if report.preprocessing is None:
            backbone = report.model.get('backbone', report.model)
            channels, supposed = backbone.get('in_channels', 3), IMAGENET
            if channels == 3:
                remarks.append(_UNKNOWN)
            else:  # Bands: by the new images.
                supposed = IMAGENET | dict(
                    mean=[127.5] * channels, std=[127.5] * channels
                )
            report = report._replace(preprocessing=supposed)
        file = str((wishes.config.parent / 'start.pth').resolve())
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        write(report, file)
        cfg = config_of(file)
    seen, names = cfg.model.data_preprocessor, checkpoint_io.read_weights(file)
    name = first_not_finite(names)
    if name is not None:
        raise CheckpointError(
            f'--init {source}: {name} has values that are not finite; the '
            'file is damaged.'
        )
    config = Config(dict(backbone=cfg.model.backbone)).to_dict()['backbone']
    return Start(
        source,
        file,
        {k: v for k, v in config.items() if k != 'norm_cfg'},
        list(seen.mean),
        list(seen.std),
        called(names) or str(config['type']).rpartition('.')[2],
        tuple(remarks),
    )
