"""Training: from the arguments of a job to a run that has ended."""

import os
from typing import Any, Literal

from mmengine.config import Config
from mmengine.runner import Runner

from mmmoco.apis import cli
from mmmoco.apis.config.adapt import (
    limit_iterations,
    out_dir_of,
    use_precision,
)
from mmmoco.apis.config.files import load_config, name_of, usual_work_dir
from mmmoco.apis.config.image_range import settle_for_training
from mmmoco.apis.config.initialization import initialize
from mmmoco.apis.training.runner import build_runner, init_processes
from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import two_phase_model
from mmmoco.engine.scaled_momentum import batch_of_m
from mmmoco.engine.screen import ABOUT, early_notes, hand_on
from mmmoco.messages import log_warning
from mmmoco.restarts import why_started_again


def prepare(
    config: str | Config,
    *,
    work_dir: str | None = None,
    resume: str | bool = False,
    overwrite: bool = False,
    load_from: str | None = None,
    init: str | None = None,
    allow_partial: bool = False,
    max_iters: int | None = None,
    schedule: Literal['keep', 'fit'] | None = None,
    fast: bool = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    auto_scale_m: bool = False,
    seed: int | None = None,
    cfg_options: cli.Settings | None = None,
    launcher: cli.Launcher = 'none',
) -> Config:
    """Turn the arguments of :func:`mmmoco.train` into a complete config.

    Raises:
        FileNotFoundError: If config or checkpoint do not exist.
        ValueError: If options contradict each other.
    """
    cfg = load_config(config, cfg_options)
    for part in ('model', 'train_dataloader'):
        if not cfg.get(part):
            raise ValueError(
                f'{name_of(config)} has no {part}: it is no '
                'config of a training.'
            )
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or usual_work_dir(cfg)
    if not cfg.work_dir.isprintable():
        raise ValueError(
            f'--work-dir {cfg.work_dir!a}: the name is not valid UTF-8, '
            'or holds characters that cannot be shown; take another one.'
        )
    if os.path.exists(cfg.work_dir) and not os.path.isdir(cfg.work_dir):
        raise ValueError(
            f'--work-dir {cfg.work_dir!r} is no folder; take another one.'
        )
    if seed is not None:
        if not 0 <= seed < 2**32:
            raise ValueError(
                f'--seed {seed}: it has to be a whole number from 0 to '
                f'{2**32 - 1}.'
            )
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}
    if auto_scale_m:
        cfg.auto_scale_m = dict(base_batch_size=batch_of_m(cfg), enable=True)
    if auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(
                '--auto-scale-lr: the config does not say which batch its lr '
                'is meant for; add auto_scale_lr=dict(base_batch_size=256).'
            )
        cfg.auto_scale_lr.enable = True
    if schedule:
        cfg.schedule = schedule
    use_precision(cfg, amp, fast)
    if max_iters is not None:
        limit_iterations(cfg, max_iters)
    if allow_partial:
        cfg.allow_partial = True
    cfg.overwrite = overwrite
    _choose_checkpoint(cfg, resume, load_from, init)
    if init:
        initialize(cfg, init)
    return cfg


def _choose_checkpoint(
    cfg: Config, resume: str | bool, load_from: str | None, init: str | None
) -> None:
    again = why_started_again(cfg.work_dir, cfg.overwrite)
    if again and checkpoint_io.any_numbered(cfg.work_dir, out_dir_of(cfg)):
        # The same command, given again by a scheduler: --load-from and the
        # path of --resume were for the first time.
        log_warning(
            f'{again}: it goes on from its newest checkpoint. To start '
            'afresh, take another --work-dir, or empty this one.'
        )
        cfg.resume, cfg.load_from = True, None
        return
    given = isinstance(resume, str) and resume != 'auto'
    said = '--resume' if resume else 'resume=True of the config'
    goes_on = resume or cfg.get('resume')
    if goes_on and cfg.overwrite and not given:
        raise ValueError(
            f'{said} goes on with the run in the work dir, --overwrite '
            'removes it: give one of them. (With --resume CKPT, --overwrite '
            'removes what is later than CKPT.)'
        )
    if goes_on and load_from:
        raise ValueError(
            f'{said} continues a run, --load-from starts a new one from '
            'weights: give one of them.'
        )
    if init and load_from:
        raise ValueError(
            '--load-from overwrites the whole model, what --init loads too: '
            'give one of them.'
        )
    path = load_from
    if resume:
        # Without a file the runner looks for the newest readable checkpoint,
        # and starts anew if there is none: jobs can always be started so.
        cfg.resume, cfg.load_from = True, None
        path = str(resume) if given else None
    if path:
        if '://' not in path:
            cli.require_file(path)
        cfg.load_from = path


def build(cfg: Config) -> Runner:
    """Build the runner of a config of :func:`prepare`."""
    with early_notes():
        init_processes(cfg, cfg.launcher)
        settle_for_training(cfg)
        runner = build_runner(cfg)
    hand_on()
    if cfg.get('initialization'):
        runner.logger.info(f'Initialised: {cfg.initialization}.', extra=ABOUT)
    return runner


def left_by(runner: Runner) -> dict[str, Any]:
    """Return what a run left behind, as :class:`mmmoco.Training` has it."""
    logged: dict[str, Any] = runner.message_hub.log_scalars
    ours = two_phase_model(runner) is not None
    newest = checkpoint_io.find_latest(runner.work_dir, out_dir_of(runner.cfg))
    return dict(
        work_dir=runner.work_dir,
        checkpoint=newest,
        iterations=runner.iter,
        next_step=f'mmmoco knn {newest} --data DIR' if ours and newest else '',
        metrics={
            name.removeprefix('train/'): float(values.current())
            for name, values in logged.items()
        },
    )
