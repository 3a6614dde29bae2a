"""Linear classifiers on frozen features, many settings trained at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmmoco.functional import generator
from mmmoco.progress import track

from .classification import (
    Metrics,
    classification_metrics,
    count_classes,
    main_metric,
)


@dataclass(frozen=True)
class ProbeSettings:
    """How the classifiers are trained: SGD with momentum 0.9.

    Attributes:
        lrs: Learning rates to try.
        weight_decays: Weight decays to try with each; biases have none.
        epochs: Passes over the features.
        batch_size: Samples of a step.
        schedule: ``'cosine'``, or ``'step'``: ×0.1 at 60 % and 80 % (MoCo v1
            and v2: epochs 60 and 80 of 100).
        standardise: Give every feature mean 0 and variance 1 over the
            training split, so that one grid of rates serves any backbone.
        held_out: Fraction of the training split that chooses the setting.
        seed: Of the initial weights, the order and the held-out part.
    """

    lrs: Sequence[float] = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
    weight_decays: Sequence[float] = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
    epochs: int = 50
    batch_size: int = 256
    schedule: str = 'cosine'
    standardise: bool = True
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in ('cosine', 'step'):
            raise ValueError(
                f"schedule={self.schedule!r}: use 'cosine' or 'step'."
            )
        if (
            not self.lrs
            or not self.weight_decays
            or not all(math.isfinite(v) and v > 0 for v in self.lrs)
            or not all(math.isfinite(v) and v >= 0 for v in self.weight_decays)
        ):
            raise ValueError(
                f'lrs={self.lrs}, weight_decays={self.weight_decays}: give '
                'at least one of each, and rates above 0.'
            )
        if not 0 < self.held_out < 1 or min(self.epochs, self.batch_size) < 1:
            raise ValueError(
                f'held_out={self.held_out} must lie between 0 and 1, '
                f'epochs={self.epochs} and batch_size={self.batch_size} at '
                'least at 1.'
            )

    def grid(self) -> list[tuple[float, float]]:
        """Return every (lr, weight decay)."""
        return [(lr, wd) for lr in self.lrs for wd in self.weight_decays]


class Candidate(NamedTuple):
    """One setting and its figure on the held-out part, in percent."""

    lr: float
    weight_decay: float
    held_out: float


class ProbeResult(NamedTuple):
    """What a linear probe found.

    Attributes:
        metrics: Of the chosen setting, trained on the whole training split,
            on the queries; in percent.
        best: The chosen setting.
        candidates: All settings.
    """

    metrics: Metrics
    best: Candidate
    candidates: list[Candidate]


class Heads(NamedTuple):
    """G linear classifiers side by side.

    Attributes:
        weight: C×G×K.
        bias: G×K.
        mean: C, subtracted from the features.
        std: C, by which they are divided.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor

    def prepare(self, x: Tensor) -> Tensor:
        """Return features on the classifiers' device, standardised."""
        return (x.to(self.weight.device, torch.float32) - self.mean) / self.std

    def scores(self, prepared: Tensor) -> Tensor:
        """Return N×G×K logits of prepared features, in one product."""
        product = prepared @ self.weight.flatten(1)
        return product.view(len(prepared), *self.bias.shape) + self.bias

    def predict(self, x: Tensor, chunk: int = 1024) -> Tensor:
        """Return N×G×K logits of features, on the CPU."""
        parts = x.split(chunk)
        return torch.cat([self.scores(self.prepare(p)).cpu() for p in parts])


@torch.no_grad()
def train_heads(
    x: Tensor,
    labels: Tensor,
    num_classes: int,
    grid: Sequence[tuple[float, float]],
    settings: ProbeSettings,
    device: torch.device | str = 'cpu',
) -> Heads:
    """Train one linear classifier for every (lr, weight decay) of a grid.

    All of them are columns of one matrix: a step costs two products, whatever
    the number of settings is. They start equal and see the same batches, and
    none reaches another: one that diverges leaves the rest alone.

    Args:
        x: N×C features, anywhere (a memory-mapped file too).
        labels: N class indices (cross-entropy), or N×L with 1, 0 and −1 for
            present, absent and not counted (soft margin over each).
        num_classes: K.
        grid: G pairs.
        settings: Everything else.
        device: Where the training runs.
    """
    N, C = x.shape
    rates, decays = torch.tensor(list(grid), device=device).T[..., None]
    mean = torch.zeros(C, device=device)
    std = torch.ones(C, device=device)
    if settings.standardise:
        mean, std = _moments(x, device)
    draws = generator(settings.seed, 'linear probe')
    start = torch.randn(C, 1, num_classes, generator=draws) * 0.01
    weight = start.to(device).repeat(1, len(grid), 1)
    bias = torch.zeros(len(grid), num_classes, device=device)
    heads = Heads(weight, bias, mean, std)
    speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    steps = math.ceil(N / settings.batch_size)
    for epoch in track(range(settings.epochs), 'Epochs of the probe'):
        draws = generator(settings.seed, epoch, 'order of the linear probe')
        order = torch.randperm(N, generator=draws)
        for step, chosen in enumerate(order.split(settings.batch_size)):
            lr = rates * _decay(settings, epoch, epoch * steps + step, steps)
            batch = heads.prepare(x[chosen.to(x.device)])
            asked = labels[chosen.to(labels.device)].to(device)
            error = _residual(heads.scores(batch), asked) / len(batch)
            slope = (batch.T @ error.flatten(1)).view_as(weight)
            slope.addcmul_(decays, weight)
            speed.mul_(0.9).add_(slope)
            weight.addcmul_(lr, speed, value=-1)
            bias_speed.mul_(0.9).add_(error.sum(0))
            bias.addcmul_(lr, bias_speed, value=-1)
    return heads


def linear_probe(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    settings: ProbeSettings,
    device: torch.device | str = 'cpu',
) -> ProbeResult:
    """Choose on a held-out part of the training split, report on ``val``.

    Args:
        train: N×C features and their labels.
        val: The same of other images; not looked at before the setting is
            chosen.
        settings: The grid and the training.
        device: Where the training runs.
    """
    x, labels = train
    classes = count_classes(labels, val[1])
    grid = settings.grid()
    if len(grid) > 1:
        draws = generator(settings.seed, 'held out')
        order = torch.randperm(len(x), generator=draws)
        kept = max(1, round(len(x) * (1 - settings.held_out)))
        fit, held = (part.to(x.device) for part in order.tensor_split([kept]))
        where = labels.device
        heads = train_heads(
            x[fit], labels[fit.to(where)], classes, grid, settings, device
        )
        scores = heads.predict(x[held]).nan_to_num(nan=0.0)
        truth = labels[held.to(where)].cpu()
        candidates = []
        for i, (lr, decay) in enumerate(grid):
            figures = classification_metrics(scores[:, i], truth)
            figure = figures[main_metric(figures)]
            candidates.append(Candidate(lr, decay, figure))
        best = max(candidates, key=lambda c: c.held_out)
    else:
        best = Candidate(*grid[0], held_out=math.nan)
        candidates = [best]
    chosen = [(best.lr, best.weight_decay)]
    heads = train_heads(x, labels, classes, chosen, settings, device)
    metrics = classification_metrics(heads.predict(val[0])[:, 0], val[1].cpu())
    return ProbeResult(metrics, best, candidates)


def _residual(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of each sample's loss by its logits, N×G×K."""
    if labels.dim() == 2:
        counts = (labels >= 0)[:, None]
        error = (logits.sigmoid() - labels[:, None].clamp(min=0)) * counts
        return error / labels.shape[1]
    error = logits.softmax(2)
    index = labels[:, None, None].expand(-1, logits.shape[1], 1)
    return error.scatter_add_(2, index, -torch.ones_like(error[..., :1]))


def _decay(
    settings: ProbeSettings, epoch: int, step: int, per_epoch: int
) -> float:
    if settings.schedule == 'cosine':
        progress = step / (settings.epochs * per_epoch)
        return 0.5 * (1 + math.cos(math.pi * progress))
    passed = epoch / settings.epochs
    return 0.1 ** ((passed >= 0.6) + (passed >= 0.8))


def _moments(
    x: Tensor, device: torch.device | str, chunk: int = 8192
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column, in one pass."""
    # Apple's GPUs have no float64.
    place = 'cpu' if torch.device(device).type == 'mps' else device
    total = torch.zeros(2, x.shape[1], dtype=torch.float64, device=place)
    for part in x.split(chunk):
        part = part.to(place, torch.float64)
        total += torch.stack([part.sum(0), part.square().sum(0)])
    mean, square = total / len(x)
    std = (square - mean.square()).clamp(min=0).sqrt()
    # A constant feature says nothing: it becomes zero.
    std = torch.where(std < 1e-6, torch.ones_like(std), std)
    return mean.float().to(device), std.float().to(device)
