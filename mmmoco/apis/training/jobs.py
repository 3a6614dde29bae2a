"""Training, and transfer to other tasks: the jobs behind their tools."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mmmoco.apis.cli import Launcher, Settings, with_options_of
from mmmoco.apis.process import tidy

if TYPE_CHECKING:
    from mmengine.config import Config

Checkpoint = Annotated[str, {'metavar': 'CKPT'}]


@dataclass(frozen=True)
class Training:
    """What a training left behind.

    Attributes:
        work_dir: Folder with logs and checkpoints.
        checkpoint: The newest one; None if none was saved.
        iterations: How many the run has in all.
        metrics: The figures that were logged last, by name.
        next_step: A command that one may want to give next, '' for none.
    """

    work_dir: str
    checkpoint: str | None
    iterations: int
    metrics: dict[str, float]
    next_step: str = ''

    def __str__(self) -> str:
        made = self.checkpoint or f'no checkpoint in {self.work_dir}'
        text = f'Trained for {self.iterations:,} iterations: {made}'
        return f'{text}\nNext: {self.next_step}' if self.next_step else text


@tidy
def train(
    config: str | Config,
    *,
    work_dir: str | None = None,
    resume: Annotated[str | bool, {'metavar': 'CKPT'}] = False,
    overwrite: bool = False,
    load_from: Annotated[str | None, {'metavar': 'CKPT'}] = None,
    init: Annotated[str | None, {'metavar': 'CKPT|supervised|random'}] = None,
    allow_partial: bool = False,
    max_iters: int | None = None,
    schedule: Literal['keep', 'fit'] | None = None,
    fast: bool = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    auto_scale_m: bool = False,
    seed: int | None = None,
    cfg_options: Settings | None = None,
    launcher: Launcher = 'none',
) -> Training:
    """Train: pre-training configs, and those of mmpretrain, mmdet and mmseg.

    Args:
        config: Path, name (mocov2_r50_8xb32), or package::path.
        work_dir: For logs and checkpoints (work_dirs/CONFIG).
        resume: Continue from CKPT, or from the newest readable checkpoint of
            the work dir.
        overwrite: Start anew in a used work dir: remove its numbered
            checkpoints; with --resume CKPT only those that are later.
        load_from: Start from the weights of CKPT.
        init: What the pre-trained parts of a downstream model start from: a
            checkpoint (from training or exported), the weights of
            torchvision, or none.
        allow_partial: Start although the weights of --load-from, --init or
            an init_cfg do not fill the network; what stays random is named.
        max_iters: Train N iterations; the schedule is fitted to them.
        schedule: Where the schedule and the run have different lengths: keep
            it, or stretch it to the run.
        fast: Use channels_last, bfloat16 mixed precision where the hardware
            has units for it, on CPUs freed memory kept, on GPUs TF32.
        amp: Use bfloat16 mixed precision.
        auto_scale_lr: Scale lr by the effective batch (accumulation
            included).
        auto_scale_m: Raise m to the power that the lr is scaled by; a resume
            goes on with the checkpoint's.
        seed: Seed of the run (drawn and logged if absent).
        cfg_options: Override settings of the config.
        launcher: Job launcher.

    Returns:
        Where the run's files are, and its last figures.

    Raises:
        FileNotFoundError: If config, checkpoint or data do not exist.
        ValueError: If a value makes no sense, or options contradict each
            other.

    Example:
        mmmoco train mocov2_r50_8xb32 --cfg-options
        train_dataloader.dataset.data_root=/my/images
    """
    options = dict(locals())
    from .train import build, left_by, prepare

    runner = build(prepare(**options))
    runner.train()
    return Training(**left_by(runner))


@dataclass(frozen=True)
class Transfer:
    """What a transfer left behind.

    Attributes:
        config: Name of the config.
        work_dir: Folder with ``results.jsonl``, logs and checkpoints.
        checkpoint: The newest one.
        metrics: The figures in percent, by name.
    """

    config: str
    work_dir: str
    checkpoint: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f'{self.config} → {self.work_dir}'


@tidy
@with_options_of(train)
def transfer(
    checkpoint: Checkpoint,
    task: str,
    *,
    data_root: str | None = None,
    check: bool = False,
    **training: Any,
) -> Transfer:
    """Fine-tune a backbone on a task, test it, and record the figures.

    They are appended to results.jsonl in the work dir. Call it again to go
    on where it was stopped.

    Args:
        checkpoint: File, or supervised, or random.
        task: One of voc-det, coco-det, coco-mask, lvis, cityscapes-inst,
            cityscapes-seg, voc-seg, ade-seg, digits-det, digits-seg.
        data_root: Instead of the config's.
        check: Look whether everything is there, and stop.
        training: Arguments of :func:`train`.

    Returns:
        Where the run's files are, and its figures.

    Raises:
        FileNotFoundError: If checkpoint or data do not exist.
        ImportError: If a package is missing.
        ValueError: If the task is unknown, an argument contradicts the
            purpose, or the work dir belongs to another run.
    """
    from .transfer import prepare, run

    what, cfg, record = prepare(checkpoint, task, data_root, training)
    found = () if check else run(checkpoint, what, cfg, record)
    return Transfer(what.config, cfg.work_dir, *found)
