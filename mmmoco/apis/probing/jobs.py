"""The jobs of the tools that judge features: they evaluate and extract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mmmoco.apis import cli
from mmmoco.apis.process import tidy

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmmoco.engine.evaluation import Measurement

Stage = Literal['backbone', 'neck']


@tidy
def evaluate_knn(
    config: str | Config,
    checkpoint: str,
    *,
    features: Stage | None = None,
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
    k: Sequence[int] | int = (),
    temperature: float | None = None,
    leave_one_out: bool = False,
    launcher: cli.Launcher = 'none',
) -> dict[int, dict[str, float]]:
    """Weighted k-NN accuracy of a checkpoint.

    Args:
        config: Path, name, or package::path.
        checkpoint: File of a pre-training run.
        features: Pooled, or projected; default: the config's.
        work_dir: Where results.jsonl is (the checkpoint's folder).
        cfg_options: Settings of the config to replace.
        k: Numbers of neighbours; default: the config's.
        temperature: Of the votes; default: the config's.
        leave_one_out: A query that stands in the bank is no neighbour of its
            own.
        launcher: How the processes were started.

    Returns:
        Figures in percent by k.

    Raises:
        CheckpointError: If the checkpoint does not fit the config.
        FileNotFoundError: If config, checkpoint or data do not exist.
        KeyError: If the config has no ``knn``.
        ValueError: If settings do not fit the data.

    Example:
        python tools/knn.py configs/mocov2_r50_8xb32.py
        work_dirs/mocov2_r50_8xb32/epoch_200.pth --k 20 200 --cfg-options
        knn.bank.dataset.data_root=/data/imagenet
        knn.query.dataset.data_root=/data/imagenet
    """
    from mmmoco.apis.training.runner import init_processes

    from .checkpoints import evaluate, read_config

    cfg = read_config(config, checkpoint, cfg_options)
    init_processes(cfg, launcher, with_runner=False)
    chosen = _given(
        type='KNN',
        k=[k] if isinstance(k, int) else list(k) or None,
        temperature=temperature,
        leave_one_out=leave_one_out or None,
    )
    found = evaluate(cfg, checkpoint, chosen, features, work_dir)
    return {part.setting['k']: part.metrics for part in found}


@tidy
def linear_probe(
    config: str | Config,
    checkpoint: str,
    *,
    features: Stage | None = None,
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
    lrs: Sequence[float] | None = None,
    weight_decays: Sequence[float] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    schedule: Literal['cosine', 'step'] | None = None,
    raw: bool = False,
    held_out: float | None = None,
    seed: int = 0,
) -> Measurement:
    """Linear classification of frozen features.

    They are extracted once, then many learning rates and weight decays are
    trained at once. The training split is the config's knn.bank, the
    validation split its knn.query; a part of the former chooses.

    Args:
        config: Path, name, or package::path.
        checkpoint: File of a pre-training run.
        features: Pooled, or projected; default: the config's.
        work_dir: Where results.jsonl is (the checkpoint's folder).
        cfg_options: Settings of the config to replace.
        lrs: Learning rates to try.
        weight_decays: Weight decays to try with each.
        epochs: Passes over the features.
        batch_size: Samples of a step.
        schedule: Of the learning rate.
        raw: Do not standardise the features (with --lrs 30 --weight-decays 0
            --schedule step --epochs 100: the protocol of MoCo v1 and v2).
        held_out: Part of the training split that chooses.
        seed: Of weights, order and held-out part.

    Returns:
        Figures in percent, and the setting that was chosen.

    Raises:
        CheckpointError: If the checkpoint does not fit the config.
        FileNotFoundError: If config, checkpoint or data do not exist.
        KeyError: If the config has no ``knn``.
        ValueError: If settings are no settings of a linear probe.

    Example:
        python tools/linear_probe.py configs/mocov2_r50_8xb32.py epoch_200.pth
        --cfg-options knn.bank.dataset.data_root=/data/imagenet
        knn.query.dataset.data_root=/data/imagenet
    """
    from .checkpoints import evaluate, read_config

    cfg = read_config(config, checkpoint, cfg_options)
    chosen = _given(
        type='LinearProbe',
        lrs=lrs,
        weight_decays=weight_decays,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        standardise=not raw,
        held_out=held_out,
        seed=seed,
    )
    return evaluate(cfg, checkpoint, chosen, features, work_dir, seed)[0]


@tidy
def evaluate_svm(
    config: str | Config,
    checkpoint: str,
    *,
    features: Stage | None = None,
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
    shots: Annotated[Sequence[int] | None, dict(nargs='*')] = None,
    draws: int = 5,
    seed: int = 0,
) -> Measurement:
    """Linear SVM a class on frozen features.

    With the whole training split (knn.bank) and with a few images a class;
    mAP on knn.query.

    Args:
        config: Path, name, or package::path.
        checkpoint: File of a pre-training run.
        features: Pooled, or projected; default: the config's.
        work_dir: Where results.jsonl is (the checkpoint's folder).
        cfg_options: Settings of the config to replace.
        shots: Images a class.
        draws: Draws of each number.
        seed: Of draws, folds and solver.

    Returns:
        Figures in percent.

    Raises:
        CheckpointError: If the checkpoint does not fit the config.
        FileNotFoundError: If config, checkpoint or data do not exist.
        KeyError: If the config has no ``knn``.
        ValueError: If no class can be evaluated.

    Example:
        python tools/svm.py
        configs/benchmarks/classification/voc07/features_mocov2_r50.py
        epoch_200.pth
    """
    from .checkpoints import evaluate, read_config

    cfg = read_config(config, checkpoint, cfg_options)
    chosen = _given(type='SVM', shots=shots, draws=draws, seed=seed)
    return evaluate(cfg, checkpoint, chosen, features, work_dir, seed)[0]


@tidy
def evaluate_checkpoints(
    config: str | Config,
    *,
    checkpoint_dir: Annotated[str, dict(metavar='DIR')],
    features: Stage | None = None,
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
    epochs: Sequence[int] | None = None,
    protocol: str = 'knn',
    k: int | None = None,
    temperature: float | None = None,
    lrs: Sequence[float] | None = None,
    weight_decays: Sequence[float] | None = None,
    probe_epochs: int | None = None,
    batch_size: int | None = None,
    schedule: Literal['cosine', 'step'] | None = None,
    raw: bool = False,
    held_out: float | None = None,
    shots: Annotated[Sequence[int] | None, dict(nargs='*')] = None,
    draws: int | None = None,
    seed: int | None = None,
) -> list[dict[str, Any]]:
    """Evaluate the checkpoints of a folder (epoch_N, iter_N) alike.

    Writes a table and a curve. What stands in results.jsonl for the same
    file, data and protocol is not evaluated again.

    Args:
        config: Path, name, or package::path.
        checkpoint_dir: Where they lie.
        features: Pooled, or projected; default: the config's.
        work_dir: Where results.jsonl is (the checkpoints' folder).
        cfg_options: Settings of the config to replace.
        epochs: Which ones (epochs, or iterations of iter_N); default: all.
        protocol: knn, linear, svm, or a name in the config's evaluations.
        k: Of k-NN.
        temperature: Of k-NN.
        lrs: Of the linear probe.
        weight_decays: Of the linear probe.
        probe_epochs: Of the linear probe.
        batch_size: Of the linear probe.
        schedule: Of the linear probe.
        raw: Of the linear probe; the features are not standardised.
        held_out: Of the linear probe.
        shots: Of the SVM.
        draws: Of the SVM.
        seed: Of the linear probe or the SVM.

    Returns:
        A row for each: number, checkpoint, error, figures in percent.

    Raises:
        FileNotFoundError: If config, data or one of them do not exist.
        KeyError: If the config has no ``knn``.
        UsageError: If there is no such protocol.
        ValueError: If not one of them could be evaluated.

    Example:
        python tools/evaluate_checkpoints.py demo/mocov2_digits
        --checkpoint-dir work_dirs/mocov2_digits --epochs 10 50 100
        --protocol knn
    """
    from mmmoco.apis.config.files import load_config
    from mmmoco.apis.config.image_range import settle_from

    from .checkpoints import (
        evaluate_series,
        evaluations_of,
        find_checkpoints,
    )

    cfg = load_config(config, dict(cfg_options or {}))
    found = find_checkpoints(checkpoint_dir, epochs)
    settle_from(cfg, str(next(iter(found.values()))))
    given = {
        'knn': _given(type='KNN', k=k, temperature=temperature),
        'linear': _given(
            type='LinearProbe',
            lrs=lrs,
            weight_decays=weight_decays,
            epochs=probe_epochs,
            batch_size=batch_size,
            schedule=schedule,
            standardise=not raw,
            held_out=held_out,
            seed=seed,
        ),
        'svm': _given(type='SVM', shots=shots, draws=draws, seed=seed),
    }
    own = given | evaluations_of(cfg)
    if protocol not in own:
        raise cli.UsageError(
            f'--protocol {protocol}: use one of {", ".join(own)}.'
        )
    folder = work_dir or checkpoint_dir
    return evaluate_series(
        cfg, found, folder, own[protocol], features, protocol
    )


@tidy
def extract_features(
    config: str | Config,
    checkpoint: str,
    *,
    out: Annotated[str, dict(metavar='FILE')],
    stage: Literal['gap', 'cls', 'mean_patch', 'neck'] = 'gap',
    split: Literal['bank', 'query'] = 'query',
    images: Annotated[str | None, dict(metavar='DIR')] = None,
    size: int = 224,
    cfg_options: cli.Settings | None = None,
) -> dict[str, Any]:
    """Write the features of images, with labels and paths, to a file.

    Args:
        config: Path, name, or package::path.
        checkpoint: File with the weights of backbone.*.
        out: .npz or .safetensors.
        stage: Average over the pixels of the last map; class token; mean of
            the patch tokens; projection of a pre-training model.
        split: Which images, the config's knn.bank or knn.query.
        images: Images below this folder instead.
        size: With --images.
        cfg_options: Settings of the config to replace.

    Returns:
        The arrays of the file by name.

    Raises:
        CheckpointError: If the checkpoint does not fit the config.
        FileNotFoundError: If config, checkpoint or images do not exist.
        ValueError: If the ending or, in this model, the stage is unknown.

    Example:
        python tools/extract_features.py configs/mocov2_r50_8xb32.py
        epoch_200.pth --out features.npz --images /my/images
    """
    from .checkpoints import read_config
    from .extract_features import check_ending, extract, loader_settings

    check_ending(out)
    cfg = read_config(config, checkpoint, cfg_options)
    settings = loader_settings(cfg, split, images, size)
    return extract(cfg, checkpoint, settings, stage, out)


@tidy
def test(
    config: str | Config,
    checkpoint: str,
    *,
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
    launcher: cli.Launcher = 'none',
) -> None:
    """Test a checkpoint.

    k-NN for pre-training configs, with what else their evaluations name; the
    test loop of the config for mmpretrain, mmdet and mmseg.

    Args:
        config: Path, name, or package::path.
        checkpoint: File to test.
        work_dir: For logs and results.
        cfg_options: Settings of the config to replace.
        launcher: How the processes were started.

    Raises:
        FileNotFoundError: If config or checkpoint do not exist.
        ValueError: If the config has neither a test loop nor ``knn``.
    """
    from mmmoco.apis.config.files import usual_work_dir
    from mmmoco.apis.training.runner import build_runner, init_processes

    from .checkpoints import evaluate, evaluations_of, read_config

    cfg = read_config(config, checkpoint, cfg_options)
    if cfg.get('test_dataloader') is None:
        if 'knn' not in cfg:
            raise ValueError(
                f'{cfg.filename!r} has neither test_dataloader nor knn: '
                'there is nothing to test.'
            )
        init_processes(cfg, launcher, with_runner=False)
        for chosen in ('KNN', *evaluations_of(cfg).values()):
            evaluate(cfg, checkpoint, chosen, work_dir=work_dir)
        return
    cfg.work_dir = work_dir or cfg.get('work_dir') or usual_work_dir(cfg)
    cfg.load_from = checkpoint
    init_processes(cfg, launcher)
    build_runner(cfg).test()


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {k: v for k, v in options.items() if v is not None}
