"""What every evaluation of frozen features has in common."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from mmengine.config import Config

from mmmoco.engine.results import append_result
from mmmoco.evaluation.classification import Metrics

from .splits import Splits


@dataclass(frozen=True)
class Measurement:
    """What an evaluation found.

    Attributes:
        metrics: Figures in percent; models are chosen by the first.
        setting: What they depend on beyond :meth:`Evaluation.describe`: which
            of several settings these are the figures of.
        title: What stands before them in a log.
    """

    metrics: Metrics
    setting: dict[str, Any] = field(default_factory=dict)
    title: str = ''


@dataclass(frozen=True)
class Evaluation(ABC):
    """One way of judging frozen features.

    A subclass is a dataclass whose fields are its arguments, registered in
    ``EVALUATIONS``: ``dict(type='LinearProbe', epochs=20)`` in a config.

    Attributes:
        task: Its name in ``results.jsonl``, and of its scalars.
        title: Its name in a log.
        ranks: Whether of two networks that of the higher figure is better.
    """

    task: ClassVar[str]
    title: ClassVar[str]
    ranks: ClassVar[bool] = True

    def check(self, data: Splits) -> None:  # noqa: B027
        """See, before anything runs, that the data will do.

        Raises:
            ValueError: If not, with what to change.
        """

    def remembered(self) -> dict[str, Any]:
        """Return what it must know when a run goes on, as plain values."""
        return {}

    def recall(self, remembered: Any) -> None:  # noqa: B027
        """Take that from a checkpoint, which is not trusted."""

    def describe(self, data: Splits) -> dict[str, Any]:
        """Return all that the figures depend on, for ``results.jsonl``."""
        return {**data.describe(), **asdict(self)}

    @abstractmethod
    def measure(self, model: Any, data: Splits) -> list[Measurement]:
        """Judge a model.

        Args:
            model: What has ``data_preprocessor`` and ``extract_feat``.
            data: Where ``data.extract(model)`` gets the features of bank and
                queries from.
        """

    def record(
        self,
        found: Measurement,
        data: Splits,
        work_dir: str,
        cfg: Config,
        **facts: Any,
    ) -> None:
        """Append figures to ``results.jsonl``.

        Args:
            found: The figures.
            data: What they were measured on.
            work_dir: Folder of the file.
            cfg: Resolved config.
            **facts: ``checkpoint``, ``epoch`` and ``seed``, if known.
        """
        append_result(
            work_dir,
            task=self.task,
            protocol={**self.describe(data), **found.setting},
            metrics=found.metrics,
            cfg=cfg,
            remarks=data.remarks,
            **facts,
        )
