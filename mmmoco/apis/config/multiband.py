"""``multiband=dict(…)``: what is known of bands, said in one place."""

from mmengine.config import Config

from mmmoco.datasets.band_presets import PRESETS, limits_of
from mmmoco.registry import bare_type, dicts_in

KEY = 'multiband'
_NAMES = ('mean', 'std', 'low', 'high')
_KNOWN = {'preset', 'bands', 'order', 'nodata', *_NAMES}


def settle_bands(cfg: Config) -> None:
    """Say to loading, network and normalisation what the images are.

    ``preset`` is a name of ``PRESETS``; ``mean`` and ``std`` are those of raw
    values, ``low`` and ``high`` the raw values that become 0 and 255 (mean
    ± 2 std); ``bands``, ``order`` and ``nodata`` those of ``LoadBands``.
    Values of one's own take the place of the preset. A config without the
    setting stays as it is.

    Args:
        cfg: Config to change.

    Raises:
        ValueError: If it is not known what that is, or if values differ in
            number.
    """
    told = cfg.get(KEY)
    if told is None:
        return
    given = {k: v for k, v in told.items() if v is not None}
    unknown = sorted(given.keys() - _KNOWN)
    if unknown:
        raise ValueError(
            f'{KEY}.{unknown[0]}: it takes {", ".join(sorted(_KNOWN))}.'
        )
    name = given.get('preset')
    if name is not None and name not in PRESETS:
        raise ValueError(
            f'{KEY}.preset={name!r}: there are {", ".join(PRESETS)}.'
        )
    own = not given.keys().isdisjoint(_NAMES)
    known = given if own or name is None else PRESETS[name] | given
    if not (
        {'mean', 'std'} <= known.keys() or {'low', 'high'} <= known.keys()
    ):
        raise ValueError(
            f'{KEY}: give mean and std (mmmoco stats DATA --bands prints '
            'them), or low and high, or a preset.'
        )
    sizes = {n: len(known[n]) for n in _NAMES if n in known}
    if isinstance(given.get('bands'), list | tuple):
        sizes['bands'] = len(given['bands'])
    if len(set(sizes.values())) > 1:
        said = ', '.join(f'{size} of {n}' for n, size in sizes.items())
        raise ValueError(f'{KEY}: one value for each band, not {said}.')
    low, high = limits_of(known)
    load = {n: given.get(n) for n in ('bands', 'order')}
    load['nodata'] = known.get('nodata')
    steps = ('train_dataloader', 'knn', 'custom_hooks')
    for step in dicts_in([cfg.get(place) for place in steps]):
        if bare_type(step) == 'LoadBands':
            step.update({k: v for k, v in load.items() if v is not None})
        elif bare_type(step) == 'ScaleBands':
            step.update(low=low, high=high)
    cfg.model.backbone.in_channels = len(low)
    ends = list(zip(low, high, strict=True))
    mean = known.get('mean') or [(a + b) / 2 for a, b in ends]
    std = known.get('std') or [(b - a) / 4 for a, b in ends]
    cfg.model.data_preprocessor.update(  # As the bytes are then.
        mean=[
            round(255 * (m - a) / (b - a), 3)
            for m, (a, b) in zip(mean, ends, strict=True)
        ],
        std=[
            round(255 * s / (b - a), 3)
            for s, (a, b) in zip(std, ends, strict=True)
        ],
    )
