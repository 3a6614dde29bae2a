"""Whether BatchNorm could give the positive away, and what prevents it.

Within one batch all features share their statistics. Where the positive key
was normalised together with its query but the negatives were not, a network
finds it without looking at the image (MoCo v1, section 3.3).
"""

from collections.abc import Iterable

from torch import nn

from mmmoco.messages import log_info, log_warning
from mmmoco.private_names import BatchNorm

_NO_GUARD = (
    'none. On one process, plain BatchNorm lets the network find the positive '
    'by the statistics of its batch instead of by the image; use '
    "norm_cfg=dict(type='SplitBN', num_splits=8) in the backbone, or several "
    'processes'
)
_SYNC_BN = (
    'none. SyncBN normalises query and key with the same joint batch, so that '
    'ShuffleBN has nothing to permute: the network can find the positive by '
    "its statistics. MoCo v1 and v2 use norm_cfg=dict(type='BN')"
)


def choose_shuffle_bn(
    method: str,
    key_path: Iterable[nn.Module],
    world: int,
    available: bool,
    stored_negatives: bool,
) -> bool:
    """Decide whether the key batch is permuted (ShuffleBN); log the guard.

    Args:
        method: Name of the algorithm.
        key_path: The modules that encode the keys.
        world: Number of processes.
        available: ShuffleBN is part of the method.
        stored_negatives: The negatives come from earlier batches.
    """
    norms = [
        layer
        for module in key_path
        for layer in module.modules()
        if isinstance(layer, BatchNorm)
    ]
    plain = [n for n in norms if not isinstance(n, nn.SyncBatchNorm)]
    # SplitBN; parts are never imported here, only built.
    splits = {getattr(n, 'num_splits', 1) for n in plain} - {1}
    shuffles, log = False, log_warning
    if not norms:
        log = log_info
        guard = 'none needed, no BatchNorm on the key path'
    elif available and plain and (world > 1 or splits):
        shuffles, log = True, log_info
        parts = ' or '.join(map(str, sorted(splits)))
        guard = f'SplitBN in {parts} parts, permuted keys'
        if world > 1:
            guard = f'ShuffleBN over {world} processes'
    elif available:
        guard = _NO_GUARD if plain else _SYNC_BN
    elif splits:
        guard = (
            f'none. {method} does not permute the keys that SplitBN needs '
            f'permuted (num_splits {splits}): query and key share their '
            'part. Use BN on one process, SyncBN on several'
        )
    elif stored_negatives:
        guard = (
            f'none. {method} does not permute its keys, and the keys in the '
            'queue were normalised with other batches than the positive: '
            'its statistics can give it away. Watch k-NN; a loss that falls '
            'while k-NN falls is the sign'
        )
    elif plain and world > 1:
        guard = (
            f'incomplete. Each of the {world} processes normalises its own '
            f'batch, and ShuffleBN is not part of {method}; it needs '
            "statistics over all processes: norm_cfg=dict(type='SyncBN') "
            '(GPUs only)'
        )
    else:
        log = log_info
        guard = (
            'one BatchNorm batch for positives and negatives, as '
            f'{method} has it'
        )
    log(f'Guard against the BatchNorm leak: {guard}.')
    return shuffles
