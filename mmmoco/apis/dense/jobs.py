"""Evaluations of patch tokens and feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmmoco.apis import cli
from mmmoco.apis.process import tidy

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmmoco.evaluation.zero_shot import ZeroShotResult

    from .subject import Seen

Dataset = Literal['digits', 'coco', 'panoptic', 'voc', 'cityscapes']
Features = Literal['model', 'colour']
Encoder = Literal['query', 'key']
Upsampling = Literal['bilinear', 'nearest']


def see(
    checkpoint: str | None,
    *,
    config: str | Config | None = None,
    dataset: Dataset = 'digits',
    annotations: str | None = None,
    images: str | None = None,
    split: str = 'val',
    min_area: int = 1,
    stuff: bool = False,
    limit: int | None = None,
    size: int | None = None,
    batch_size: int = 16,
    features: Features = 'model',
    encoder: Encoder = 'query',
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
) -> Seen:
    """Open a checkpoint, and images with masks of objects.

    Args:
        checkpoint: File; without it random weights, of the config.
        config: Path, name, or package::path; default: what the checkpoint
            tells about itself.
        dataset: Which images with masks.
        annotations: JSON of coco or panoptic; its root for others.
        images: Folder of the images (coco, panoptic).
        split: Part of the data set.
        min_area: Leave objects with fewer pixels out.
        stuff: Panoptic: keep it.
        limit: Use the first N images only.
        size: Side of the images (the backbone's img_size).
        batch_size: Images in one forward.
        features: Of the model, or the mean colour of the patches, to compare
            with.
        encoder: The trained encoder or its moving average.
        work_dir: Where results and pictures go (the checkpoint's folder).
        cfg_options: Settings of the config to replace.

    Raises:
        UsageError: If options do not fit together.
        FileNotFoundError: If config, checkpoint or images do not exist.
    """
    from .subject import Images, Seen, Subject

    subject = Subject.of(config, checkpoint, work_dir, cfg_options)
    shown = Images(dataset, annotations, images, split, min_area, stuff, limit)
    side = subject.image_size(dataset, size)
    data = shown.open()
    return Seen(subject, shown, data, side, batch_size, features, encoder)


@tidy
@cli.with_options_of(see)
def zero_shot_segmentation(
    checkpoint: str | None = None,
    *,
    prompt: Literal['centre', 'random'] = 'centre',
    prompts: int = 1,
    upsample: Upsampling = 'bilinear',
    seed: int = 0,
    **seen: Any,
) -> ZeroShotResult:
    """Segment objects by one patch of each, without any training.

    What is as similar to the prompted patch as a threshold asks is the
    object. Writes ``results.jsonl`` and the curve over thresholds.

    Args:
        checkpoint: File; without it random weights, of the config.
        prompt: The pixel farthest from the mask's edge, or any of it.
        prompts: Random prompts of each object.
        upsample: How maps grow to the image.
        seed: Of random prompts, random weights and the held-out half.
        seen: Arguments of :func:`see`.

    Raises:
        UsageError: If options do not fit together, or there is no object.
        FileNotFoundError: If config, checkpoint or images do not exist.
        CheckpointError: If the checkpoint does not fit.

    Example:
        mmmoco zero-shot work_dirs/mmc/epoch_400.pth --dataset coco
        --annotations data/coco/annotations/instances_val2017.json
        --images data/coco/val2017 --size 448
    """
    if prompts < 1 or (prompts > 1 and prompt == 'centre'):
        raise cli.UsageError(
            f'--prompts {prompts}: at least 1, and more than one only with '
            '--prompt random.'
        )
    import torch

    from mmmoco.evaluation.zero_shot import summarise

    from .zero_shot_seg import log_figures, score_dataset, write_curve

    opened = see(checkpoint, **seen)
    torch.manual_seed(seed)  # of random weights
    scored = score_dataset(
        *(opened.maps(), opened.data, prompt, prompts, upsample),
        *(opened.batch_size, seed),
    )
    result = summarise(
        *scored.scores, scored.classes, scored.images, seed=seed
    )
    log_figures(result, scored)
    protocol = opened.protocol() | {
        'prompt': prompt,
        'prompts': prompts,
        'upsample': upsample,
        'images': len(set(scored.images)),
        'objects': len(scored.classes),
    }
    subject = opened.subject
    subject.record('zero-shot segmentation', protocol, result.metrics, seed)
    write_curve(subject.folder, result)
    subject.say_written('results.jsonl, zero_shot.*')
    return result


@tidy
@cli.with_options_of(see)
def similarity(
    checkpoint: str | None = None,
    *,
    layers: Sequence[int] | None = None,
    background: bool = False,
    seed: int = 0,
    **seen: Any,
) -> dict[int | str, dict[str, float]]:
    """Measure the cosines of patch pairs inside objects and between them.

    Writes means, overlap coefficient and AUC to ``results.jsonl``, and a
    figure.

    Args:
        checkpoint: File; without it random weights, of the config.
        layers: Blocks of a ViT from 0, or stages of a ResNet; default: the
            last.
        background: What no object covers counts as one more object.
        seed: Of random weights.
        seen: Arguments of :func:`see`.

    Returns:
        The figures by layer; ``'last'`` without layers.

    Raises:
        UsageError: If options do not fit together, or a layer is not there.
        FileNotFoundError: If config, checkpoint or images do not exist.
        CheckpointError: If the checkpoint does not fit.

    Example:
        mmmoco similarity work_dirs/mmc_digits/epoch_27.pth --layers 0 1 2 3
    """
    import torch

    from .similarity import log_figures, measure, write_histograms

    opened = see(checkpoint, **seen)
    torch.manual_seed(seed)  # of random weights
    found = measure(
        opened.maps(layers), opened.data, opened.batch_size, background
    )
    subject = opened.subject
    names: list[int | str] = [*sorted(layers or ())] or ['last']
    pairs = dict(zip(names, found, strict=True))
    figures = {layer: each.metrics() for layer, each in pairs.items()}
    for layer, metrics in figures.items():
        log_figures(layer, metrics)
        protocol = opened.protocol()
        protocol |= {'layer': layer, 'background': background}
        subject.record('similarity', protocol, metrics, seed)
    write_histograms(subject.folder, pairs)
    subject.say_written('results.jsonl, similarity.png')
    return figures


@tidy
@cli.with_options_of(see)
def visualize_similarity(
    checkpoint: str | None = None,
    *,
    count: int = 5,
    threshold: float = 0.3,
    upsample: Upsampling = 'bilinear',
    reconstructions: bool = False,
    **seen: Any,
) -> list[Path]:
    """Draw images with a prompt, their similarity maps, masks and truth.

    With reconstructions also what MMC restores.

    Args:
        checkpoint: File; without it random weights, of the config.
        count: Rows, and columns of reconstructions.
        threshold: T of the drawn masks.
        upsample: How maps grow to the image.
        reconstructions: Let MMC restore corrupted images, too.
        seen: Arguments of :func:`see`.

    Returns:
        The pictures.

    Raises:
        UsageError: If options do not fit together, there is no object, or
            the model has no reconstruction head.
        FileNotFoundError: If config, checkpoint or images do not exist.
        CheckpointError: If the checkpoint does not fit.

    Example:
        mmmoco visualize-similarity work_dirs/mmc_digits/epoch_27.pth
        --threshold 0.95
    """
    if count < 1:
        raise cli.UsageError(f'--count {count}: must be at least 1.')
    from .visualize_similarity import draw_maps, draw_restored

    opened = see(checkpoint, **seen)
    subject, data = opened.subject, opened.data
    drawn = [subject.folder / 'similarity_maps.png']
    draw_maps(drawn[0], opened.maps(), data, count, threshold, upsample)
    if reconstructions:
        drawn.append(subject.folder / 'reconstructions.png')
        draw_restored(drawn[1], subject.model(), data, count, opened.side)
    subject.say_written(', '.join(path.name for path in drawn))
    return drawn


@tidy
def davis(
    checkpoint: str,
    root: str,
    *,
    config: str | Config | None = None,
    split: str = 'val',
    resolution: str = '480p',
    context: int = 7,
    radius: int = 12,
    topk: int = 5,
    temperature: float = 0.1,
    encoder: Encoder = 'query',
    work_dir: str | None = None,
    cfg_options: cli.Settings | None = None,
) -> dict[str, float]:
    """Propagate labels through the videos of DAVIS 2017.

    With frozen features, the protocol of DINO; writes PNGs, and J and F
    where the annotations are there.

    Args:
        checkpoint: File of a pre-training run.
        root: Folder of DAVIS.
        config: Path, name, or package::path; default: what the checkpoint
            tells about itself.
        split: Part of the data set.
        resolution: Folder below JPEGImages and Annotations.
        context: Last frames that count beside the first.
        radius: Half the side of the window, in patches.
        topk: Sources of a patch.
        temperature: Divides the cosines.
        encoder: The trained encoder or its moving average.
        work_dir: Where results.jsonl is (the checkpoint's folder).
        cfg_options: Settings of the config to replace.

    Returns:
        Means of J, F and both in percent; empty without annotations.

    Raises:
        UsageError: If the model has no such encoder.
        FileNotFoundError: If config, checkpoint, list or frames are missing.
        CheckpointError: If the checkpoint does not fit.

    Example:
        mmmoco davis work_dirs/mmc/epoch_400.pth data/DAVIS
    """
    from .davis import evaluate_videos, videos_of
    from .features import ModelFeatures
    from .subject import Subject

    subject = Subject.of(config, checkpoint, work_dir, cfg_options)
    videos = videos_of(root, split, resolution)
    patch = int(subject.cfg.model.backbone.get('patch_size', 16))
    features = ModelFeatures(subject.model(), patch, encoder)
    options: dict[str, Any] = dict(
        context=context, radius=radius, topk=topk, temperature=temperature
    )
    metrics = evaluate_videos(features, videos, subject.folder, options)
    if metrics:
        protocol = options | dict(
            split=split, encoder=encoder, videos=len(videos)
        )
        subject.record('DAVIS 2017', protocol, metrics)
    return metrics
