"""The jobs of the tools that judge features: they evaluate and extract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from mmmoco.apis import cli
from mmmoco.apis.process import tidy

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmmoco.engine.evaluation import Measurement

    from .folders import Folder
    from .near_duplicates import Duplicates

Stage = Literal['backbone', 'neck']
#: One folder or several.
Data = Sequence[str] | str
Found = TypeVar('Found')
Patterns = Annotated[Sequence[str], {'metavar': 'PATTERN'}]
PATTERNS = ('include', 'exclude')
#: Of files of features.
ENDINGS = ('.npz', '.safetensors', '.parquet')


def file_patterns(
    *, include: Patterns = (), exclude: Patterns = ()
) -> dict[str, Sequence[str]]:
    """Return the patterns that were given.

    Args:
        include: Take only files whose path below the folder, or a name in
            it, fits one of these ('*_image.tif').
        exclude: Leave out files that fit one of these ('*_mask.tif', masks).
    """
    given = dict(include=include, exclude=exclude)
    return {name: patterns for name, patterns in given.items() if patterns}


@tidy
@cli.with_options_of(file_patterns)
def evaluate_knn(
    checkpoint: str,
    *,
    config: str | Config | None = None,
    data: Data = (),
    features: Stage | None = None,
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
    k: Annotated[Sequence[int] | int, cli.COUNT] = (),
    temperature: float | None = None,
    leave_one_out: bool = False,
    seed: int = 0,
    launcher: cli.Launcher = 'none',
    **patterns: Sequence[str],
) -> dict[int, dict[str, float]] | dict[str, dict[int, dict[str, float]]]:
    """Weighted k-NN accuracy of a checkpoint.

    Args:
        checkpoint: File of a pre-training run.
        config: Path, name, or package::path; default: what the checkpoint
            tells about itself.
        data: Folders of class folders, with train and val or without,
            instead of the config's images.
        features: Pooled, or projected; default: the config's.
        work_dir: Where results.jsonl is (the checkpoint's folder).
        cfg_options: Settings of the config to replace.
        k: Numbers of neighbours; default: the config's.
        temperature: Of the votes; default: the config's.
        leave_one_out: A query that stands in the bank is no neighbour of its
            own; with data, every image is a query among all others.
        seed: Of the split of folders without train and val.
        launcher: How the processes were started.
        patterns: Arguments of :func:`file_patterns`, for data.

    Returns:
        Figures in percent by k; of a list of folders, by folder.

    Raises:
        CheckpointError: If the checkpoint does not fit the config.
        FileNotFoundError: If config, checkpoint or data do not exist.
        KeyError: If the config has no ``knn``.
        ValueError: If settings do not fit the data.

    Example:
        mmmoco knn work_dirs/mocov2_r50_8xb32/epoch_200.pth --data
        /data/imagenet /data/flowers --k 20 200
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

    def by_k(folder: Folder | None) -> dict[int, dict[str, float]]:
        used = seed if folder else None
        found = evaluate(
            cfg, checkpoint, chosen, features, work_dir, used, folder
        )
        return {part.setting['k']: part.metrics for part in found}

    return _on_each(data, by_k, seed, patterns, leave_one_out)


def linear_settings(
    *,
    lrs: Sequence[float] | None = None,
    weight_decays: Sequence[float] | None = None,
    batch_size: Annotated[int | None, cli.COUNT] = None,
    schedule: Literal['cosine', 'step'] | None = None,
    raw: bool = False,
    held_out: float | None = None,
) -> dict[str, Any]:
    """Return the settings of a linear probe that were given.

    Args:
        lrs: Learning rates that the linear probe tries.
        weight_decays: Weight decays that it tries with each.
        batch_size: Samples of its step.
        schedule: Of its learning rate.
        raw: It does not standardise the features (with --lrs 30
            --weight-decays 0 --schedule step and 100 epochs: the protocol of
            MoCo v1 and v2).
        held_out: Part of the training split that chooses.
    """
    return _given(
        type='LinearProbe',
        lrs=lrs,
        weight_decays=weight_decays,
        batch_size=batch_size,
        schedule=schedule,
        standardise=not raw,
        held_out=held_out,
    )


@tidy
@cli.with_options_of(linear_settings)
@cli.with_options_of(file_patterns)
def linear_probe(
    checkpoint: str,
    *,
    config: str | Config | None = None,
    data: Data = (),
    features: Stage | None = None,
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
    epochs: Annotated[int | None, cli.COUNT] = None,
    seed: int = 0,
    **settings: Any,
) -> Measurement | dict[str, Measurement]:
    """Linear classification of frozen features.

    They are extracted once, then many learning rates and weight decays are
    trained at once. The training split is the config's knn.bank, the
    validation split its knn.query; a part of the former chooses.

    Args:
        checkpoint: File of a pre-training run.
        config: Path, name, or package::path; default: what the checkpoint
            tells about itself.
        data: Folders of class folders, with train and val or without,
            instead of the config's images.
        features: Pooled, or projected; default: the config's.
        work_dir: Where results.jsonl is (the checkpoint's folder).
        cfg_options: Settings of the config to replace.
        epochs: Passes over the features.
        seed: Of weights, order and held-out part, and of the split of
            folders without train and val.
        settings: Arguments of :func:`linear_settings` and, for data, of
            :func:`file_patterns`.

    Returns:
        Figures in percent, and the setting that was chosen; of a list of
        folders, by folder.

    Raises:
        CheckpointError: If the checkpoint does not fit the config.
        FileNotFoundError: If config, checkpoint or data do not exist.
        KeyError: If the config has no ``knn``.
        ValueError: If settings are no settings of a linear probe.

    Example:
        mmmoco probe work_dirs/mocov2_r50_8xb32/epoch_200.pth --data
        /data/imagenet
    """
    from .checkpoints import evaluate, read_config

    patterns = {n: settings.pop(n) for n in PATTERNS if n in settings}
    cfg = read_config(config, checkpoint, cfg_options)
    chosen = linear_settings(**settings) | _given(epochs=epochs, seed=seed)
    given = cfg, checkpoint, chosen, features, work_dir, seed
    return _on_each(
        data, lambda folder: evaluate(*given, folder)[0], seed, patterns
    )


@tidy
@cli.with_options_of(file_patterns)
def evaluate_svm(
    checkpoint: str,
    *,
    config: str | Config | None = None,
    data: Data = (),
    features: Stage | None = None,
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
    shots: Annotated[Sequence[int] | None, dict(nargs='*')] = None,
    draws: Annotated[int, cli.COUNT] = 5,
    seed: int = 0,
    **patterns: Sequence[str],
) -> Measurement | dict[str, Measurement]:
    """Linear SVM a class on frozen features.

    With the whole training split (knn.bank) and with a few images a class;
    mAP on knn.query.

    Args:
        checkpoint: File of a pre-training run.
        config: Path, name, or package::path; default: what the checkpoint
            tells about itself.
        data: Folders of class folders, with train and val or without,
            instead of the config's images.
        features: Pooled, or projected; default: the config's.
        work_dir: Where results.jsonl is (the checkpoint's folder).
        cfg_options: Settings of the config to replace.
        shots: Images a class.
        draws: Draws of each number.
        seed: Of draws, folds and solver, and of the split of folders without
            train and val.
        patterns: Arguments of :func:`file_patterns`, for data.

    Returns:
        Figures in percent; of a list of folders, by folder.

    Raises:
        CheckpointError: If the checkpoint does not fit the config.
        FileNotFoundError: If config, checkpoint or data do not exist.
        KeyError: If the config has no ``knn``.
        ValueError: If no class can be evaluated.

    Example:
        mmmoco svm epoch_200.pth --config
        benchmarks/classification/voc07/features_mocov2_r50_voc07
    """
    from .checkpoints import evaluate, read_config

    cfg = read_config(config, checkpoint, cfg_options)
    chosen = _given(type='SVM', shots=shots, draws=draws, seed=seed)
    given = cfg, checkpoint, chosen, features, work_dir, seed
    return _on_each(
        data, lambda folder: evaluate(*given, folder)[0], seed, patterns
    )


@tidy
@cli.with_options_of(linear_settings)
@cli.with_options_of(file_patterns)
def evaluate_checkpoints(
    checkpoint_dir: Annotated[str, dict(metavar='DIR')],
    *,
    config: str | Config | None = None,
    data: str | None = None,
    features: Stage | None = None,
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
    epochs: Sequence[int] | None = None,
    protocol: str = 'knn',
    k: Annotated[int | None, cli.COUNT] = None,
    temperature: float | None = None,
    probe_epochs: Annotated[int | None, cli.COUNT] = None,
    shots: Annotated[Sequence[int] | None, dict(nargs='*')] = None,
    draws: Annotated[int | None, cli.COUNT] = None,
    seed: int | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Evaluate the checkpoints of a folder (epoch_N, iter_N) alike.

    Writes a table and a curve. What stands in results.jsonl for the same
    file, data and protocol is not evaluated again.

    Args:
        checkpoint_dir: Where they lie.
        config: Path, name, or package::path; default: what the first of them
            tells about itself.
        data: Folder of class folders, with train and val or without, instead
            of the config's images.
        features: Pooled, or projected; default: the config's.
        work_dir: Where results.jsonl is (the checkpoints' folder).
        cfg_options: Settings of the config to replace.
        epochs: Which ones (epochs, or iterations of iter_N); default: all.
        protocol: knn, linear, svm, or a name in the config's evaluations.
        k: Of k-NN.
        temperature: Of k-NN.
        probe_epochs: Of the linear probe: passes over the features.
        shots: Of the SVM.
        draws: Of the SVM.
        seed: Of the linear probe or the SVM, and of the split of a folder
            without train and val.
        settings: Arguments of :func:`linear_settings` and, for data, of
            :func:`file_patterns`.

    Returns:
        A row for each: number, checkpoint, error, figures in percent.

    Raises:
        FileNotFoundError: If config, data or one of them do not exist.
        KeyError: If the config has no ``knn``.
        UsageError: If there is no such protocol.
        ValueError: If not one of them could be evaluated.

    Example:
        mmmoco evaluate work_dirs/mocov2_digits --config demo/mocov2_digits
        --epochs 10 50 100 --protocol knn
    """
    from mmmoco.apis.config.files import load_config

    from .checkpoints import (
        evaluate_series,
        evaluations_of,
        find_checkpoints,
        read_config,
    )

    patterns = {n: settings.pop(n) for n in PATTERNS if n in settings}
    if config is not None:  # What is wrong in it is said first.
        config = load_config(config, cfg_options)
    found = find_checkpoints(checkpoint_dir, epochs)
    first = str(next(iter(found.values())))
    cfg = read_config(config, first, None if config else cfg_options)
    given = {
        'knn': _given(type='KNN', k=k, temperature=temperature),
        'linear': linear_settings(**settings)
        | _given(epochs=probe_epochs, seed=seed),
        'svm': _given(type='SVM', shots=shots, draws=draws, seed=seed),
    }
    own = given | evaluations_of(cfg)
    if protocol not in own:
        raise cli.UsageError(
            f'--protocol {protocol}: use one of {", ".join(own)}.'
        )
    (folder,) = _folders(data or (), seed or 0, patterns)
    place = work_dir or checkpoint_dir
    return evaluate_series(
        cfg, found, place, own[protocol], features, protocol, folder
    )


@tidy
@cli.with_options_of(file_patterns)
def extract_features(
    checkpoint: str,
    *,
    config: str | Config | None = None,
    out: Annotated[str, dict(metavar='FILE', type=cli.ending(*ENDINGS))],
    data: Annotated[str | None, dict(metavar='DIR')] = None,
    stage: Literal['gap', 'cls', 'mean_patch', 'neck'] = 'gap',
    tokens: Literal['patch', 'cls', 'all'] | None = None,
    layer: int | None = None,
    split: Literal['bank', 'query'] = 'query',
    images: Annotated[str | None, dict(metavar='DIR')] = None,
    size: Annotated[int | None, cli.COUNT] = None,
    cfg_options: cli.Settings | None = None,
    **patterns: Sequence[str],
) -> dict[str, Any]:
    """Write the features of images, with labels and paths, to a file.

    Args:
        checkpoint: File with the weights of backbone.*.
        config: Path, name, or package::path; default: what the checkpoint
            tells about itself.
        out: .npz, .safetensors or .parquet.
        data: Folder with images at any depth, or of class folders, which are
            the labels; default: the config's.
        stage: Average over the pixels of the last map; class token; mean of
            the patch tokens; projection of a pre-training model.
        tokens: Not one vector an image, but its patch tokens (of a
            convolutional network the pixels of its map), the class token, or
            all, the class token first.
        layer: Block of a transformer or stage of a network whose output is
            taken, from 0; -1 is the last, which alone is normalised.
        split: Without data, which images of the config: its knn.bank or
            knn.query.
        images: An older name of data.
        size: Side of what the network sees of data; default: as in the
            evaluation or the training of the config.
        cfg_options: Settings of the config to replace.
        patterns: Arguments of :func:`file_patterns`, for data.

    Returns:
        The arrays of the file by name.

    Raises:
        CheckpointError: If the checkpoint does not fit the config.
        FileNotFoundError: If config, checkpoint or images do not exist.
        UsageError: If options do not go together.
        ValueError: If the ending or, in this model, stage, tokens or layer
            are unknown.

    Example:
        mmmoco features work_dirs/mocov2_r50_8xb32/epoch_200.pth --data
        /my/images --out features.npz
    """
    from .checkpoints import read_config
    from .extract_features import Part, extract, loader_settings

    cli.ending(*ENDINGS)(out)
    if data and images:
        raise cli.UsageError('--data and --images mean the same: give one.')
    part = Part.of(stage, tokens, layer)
    cfg = read_config(config, checkpoint, cfg_options)
    images = data or images
    chosen = _patterns_of(images, patterns)
    settings = loader_settings(cfg, split, images, size, chosen)
    return extract(cfg, checkpoint, settings, part, out)


@tidy
@cli.with_options_of(file_patterns)
def near_duplicates(
    folder: Annotated[str, {'metavar': 'DIR'}],
    *,
    model: Annotated[str | None, {'metavar': 'CKPT'}] = None,
    config: str | Config | None = None,
    features: Annotated[
        str | None, dict(metavar='FILE', type=cli.ending('.npz'))
    ] = None,
    threshold: float = 0.95,
    neighbours: Annotated[int, cli.COUNT] = 10,
    size: Annotated[int | None, cli.COUNT] = None,
    out: Annotated[
        str, dict(metavar='FILE', type=cli.ending('.csv'))
    ] = 'near_duplicates.csv',
    cfg_options: cli.Settings | None = None,
    **patterns: Sequence[str],
) -> Duplicates:
    """Find near-duplicates among images: lists of groups, and a picture.

    Images whose features are similar enough are joined, and so are those
    that are joined to the same one. The list serves as ann_file, with
    group_by='group'; one beside it (_kept.csv) names the largest file of each
    group alone.

    Args:
        folder: Of the images, at any depth.
        model: Checkpoint whose backbone makes the features.
        config: Path, name, or package::path; default: what the checkpoint
            tells about itself.
        features: Instead of a model, features of these images, written
            by mmmoco features.
        threshold: Least cosine similarity of two near-duplicates; what other
            ones would find is said, too.
        neighbours: Of each image that are looked at.
        size: Side of what the network sees; default: as in the evaluation or
            the training of the config.
        out: List to write; the others stand beside it.
        cfg_options: Settings of the config to replace.
        patterns: Arguments of :func:`file_patterns`, for data.

    Raises:
        CheckpointError: If the checkpoint does not fit the config.
        FileNotFoundError: If a file or the folder does not exist.
        UsageError: If options do not go together.
        ValueError: If the features are none.

    Example:
        mmmoco near-duplicates /data/scraped --model
        work_dirs/mocov2_r50_8xb32/epoch_200.pth --threshold 0.97
    """
    from .checkpoints import read_config
    from .near_duplicates import from_file, from_model
    from .near_duplicates import near_duplicates as find

    cli.ending('.csv')(out)
    if (model is None) == (features is None):
        raise cli.UsageError('Give either --model or --features.')
    if not 0.0 < threshold < 1.0:
        raise cli.UsageError(
            f'--threshold {threshold} must lie between 0 and 1, without them: '
            'features of the same pixels differ in the last digit.'
        )

    chosen = _patterns_of(model, patterns, '--model')

    def read(place: str) -> Any:
        if features is not None:
            return from_file(features)
        cfg = read_config(config, str(model), cfg_options)
        return from_model(cfg, str(model), folder, size, place, chosen)

    return find(folder, read, threshold, neighbours, out)


@tidy
def test(
    checkpoint: str,
    *,
    config: str | Config | None = None,
    data: str | None = None,
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
    launcher: cli.Launcher = 'none',
) -> None:
    """Test a checkpoint.

    k-NN for pre-training configs, with what else their evaluations name; the
    test loop of the config for mmpretrain, mmdet and mmseg.

    Args:
        checkpoint: File to test.
        config: Path, name, or package::path; default: what the checkpoint
            tells about itself.
        data: Folder of class folders for the evaluations, instead of the
            config's images.
        work_dir: For logs and results.
        cfg_options: Settings of the config to replace.
        launcher: How the processes were started.

    Raises:
        FileNotFoundError: If config or checkpoint do not exist.
        ValueError: If the config has neither a test loop nor ``knn``.
    """
    from mmmoco.apis.config.files import name_of, usual_work_dir
    from mmmoco.apis.training.runner import build_runner, init_processes

    from .checkpoints import evaluate, evaluations_of, read_config

    cfg = read_config(config, checkpoint, cfg_options)
    if cfg.get('test_dataloader') is None:
        if 'knn' not in cfg and data is None:
            raise ValueError(
                f'{name_of(cfg)} has neither test_dataloader nor knn: there '
                'is nothing to test. Name class folders with --data.'
            )
        init_processes(cfg, launcher, with_runner=False)
        (folder,) = _folders(data or ())
        for chosen in ('KNN', *evaluations_of(cfg).values()):
            evaluate(cfg, checkpoint, chosen, work_dir=work_dir, folder=folder)
        return
    cfg.work_dir = work_dir or cfg.get('work_dir') or usual_work_dir(cfg)
    cfg.load_from = checkpoint
    init_processes(cfg, launcher)
    build_runner(cfg).test()


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {k: v for k, v in options.items() if v is not None}


def _patterns_of(
    source: object, options: Mapping[str, Any], needed: str = '--data'
) -> dict[str, Sequence[str]]:
    """Return patterns of files; refuse them where they would do nothing."""
    patterns = file_patterns(**options)
    if patterns and not source:
        given = ' and '.join(f'--{name}' for name in patterns)
        raise cli.UsageError(
            f'{given} without {needed}: they choose among the files of a '
            'folder that is read.'
        )
    return patterns


def _folders(
    data: Data,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    leave_one_out: bool = False,
) -> list[Folder | None]:
    """Return the folders to evaluate on; None: what the config says."""
    from .folders import Folder

    paths = [data] if isinstance(data, str) else data
    patterns = _patterns_of(paths, options or {})
    return [Folder(path, leave_one_out, seed, patterns) for path in paths] or [
        None
    ]


def _on_each(
    data: Data,
    evaluated: Callable[[Folder | None], Found],
    seed: int,
    options: Mapping[str, Any],
    leave_one_out: bool = False,
) -> Found | dict[str, Found]:
    """Evaluate on the images; return figures by folder if a list was given."""
    folders = _folders(data, seed, options, leave_one_out)
    if isinstance(data, str) or not data:
        return evaluated(folders[0])
    return {each.path: evaluated(each) for each in folders if each}
