"""From a config to an evaluation and its data."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mmengine.registry import DefaultScope

from mmmoco.registry import EVALUATIONS, bare_type

from .evaluation import Evaluation
from .knn import KNN
from .splits import Splits


def build_evaluation(
    config: str | Mapping[str, Any], knn: Mapping[str, Any], seed: int | None
) -> tuple[Evaluation, Splits]:
    """Build an evaluation and its data, so that a bad path is found at once.

    Args:
        config: Its type, or a dict with the type and arguments.
        knn: ``dict(bank=data loader, query=data loader, features='backbone',
            backend='auto', memory_map=None, k=20, temperature=0.07,
            leave_one_out=False)``; all but the loaders may be left out. The
            last three are for k-NN.
        seed: Of the samplers.

    Raises:
        FileNotFoundError: If data is not there, naming the setting.
        ValueError: If the settings are incomplete or do not fit, or a query
            has a class that the bank does not know.
    """
    own = [part.name for part in fields(KNN)]
    known = [*Splits.SETTINGS, *own]
    unknown = [str(name) for name in knn if name not in known]
    if unknown:
        raise ValueError(
            f'knn.{unknown[0]} is no setting of k-NN; it has '
            f'{", ".join(known)}.'
        )
    if not isinstance(config, str) and not (
        isinstance(config, Mapping) and 'type' in config
    ):
        raise ValueError(
            f"{config!r} is no evaluation: give its type, such as 'KNN', or "
            "dict(type='LinearProbe', epochs=20)."
        )
    chosen = dict(type=config) if isinstance(config, str) else dict(config)
    if bare_type(chosen) == 'KNN':
        chosen = {n: knn[n] for n in own if n in knn} | chosen
    try:
        with DefaultScope.overwrite_default_scope('mmmoco'):
            evaluation: Evaluation = EVALUATIONS.build(chosen)
    except TypeError as error:
        if '__init__()' in str(error):
            raise
        raise ValueError(f'{chosen}: {error}') from error
    data = Splits.build({n: v for n, v in knn.items() if n not in own}, seed)
    evaluation.check(data)
    return evaluation, data
