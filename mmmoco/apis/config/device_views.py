"""``device_views=True``: one switch moves views from workers to the device."""

from typing import Any

from mmengine.config import Config, ConfigDict

#: Operation of a worker → its counterpart for a batch, with the same
#: arguments. Crops stay with the workers, which know the whole image.
COUNTERPARTS = {
    'FastFlip': 'BatchFlip',
    'FastColorJitter': 'BatchColorJitter',
    'FastGrayscale': 'BatchGrayscale',
    'FastGaussianBlur': 'BatchGaussianBlur',
    'FastSolarize': 'BatchSolarize',
    'DiscreteRotation': 'BatchDiscreteRotation',
    'GaussianNoise': 'BatchGaussianNoise',
}

#: Transforms that hold a pipeline for each view.
PACKERS = ('Views', 'SeasonalViews')


def move_views(cfg: Config) -> None:
    """Let the data preprocessor do what follows the crops, if so asked.

    With ``device_views=True`` every view of the training pipeline keeps its
    operations up to the last one that has no counterpart for batches; the
    others go to ``model.data_preprocessor.views``, in their order. Without
    it nothing changes. A config that was moved before has nothing left to
    move.

    Args:
        cfg: Config to change.

    Raises:
        ValueError: If the config has no views to move.
    """
    if not cfg.get('device_views', False):
        return
    pipeline = cfg.train_dataloader.dataset.get('pipeline', [])
    packers = [t for t in pipeline if _kind(t) in PACKERS]
    preprocessor = cfg.model.get('data_preprocessor', {})
    if not packers or not _kind(preprocessor).endswith('ViewAugmentor'):
        raise ValueError(
            'device_views=True: the config has no Views in its training '
            'pipeline, or no ViewAugmentor to move them to. Set '
            'device_views=False, or write such views.'
        )
    moved = preprocessor.get('views') or ConfigDict()
    for packer in packers:
        for name, ops in packer['views'].items():
            kept = len(ops)
            while kept and _kind(ops[kept - 1]) in COUNTERPARTS:
                kept -= 1
            if kept == len(ops):
                continue
            packer['views'][name] = ops[:kept]
            batch_ops = [
                {**op, 'type': f'mmmoco.{COUNTERPARTS[_kind(op)]}'}
                for op in ops[kept:]
            ]
            moved[name] = ConfigDict(source=name, ops=batch_ops)
    preprocessor['views'] = moved


def _kind(part: Any) -> str:
    """Return a type without its scope."""
    return str(part.get('type')).removeprefix('mmmoco.')
