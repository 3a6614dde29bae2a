"""Data sets measured, split and written: the jobs behind four tools."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from mmmoco.apis.cli import Settings, UsageError, number_or_name
from mmmoco.apis.process import tidy

if TYPE_CHECKING:
    from mmengine.config import Config

    from .dataset_stats import Measured
    from .shard_writer import Written

GROUP = {'metavar': 'N|COLUMN', 'type': number_or_name}
Patterns = Annotated[Sequence[str], {'metavar': 'PATTERN'}]


@tidy
def dataset_stats(
    source: str | Config,
    *,
    bands: bool = False,
    order: Literal['auto', 'hwc', 'chw'] = 'auto',
    nodata: float | None = None,
    include: Patterns = (),
    exclude: Patterns = (),
    max_images: int | None = None,
    cfg_options: Settings | None = None,
) -> Measured:
    """Mean and standard deviation of every channel.

    Ready to be pasted into data_preprocessor; bad files are skipped and
    listed.

    Args:
        source: Folder of images; or a config, whose training data is
            measured.
        bands: Read a folder as multi-band images (.tif, .tiff, .npy, or
            where there is none, the others with their channels as they are).
        order: How the files store bands, where they do not tell.
        nodata: Value that says that there is none, where no file tells.
        include: Take only files whose path below the folder, or a name in
            it, fits one of these ('*_image.tif').
        exclude: Leave out files that fit one of these ('*_mask.tif', masks).
        max_images: Measure N images, spread over the data set.
        cfg_options: Override settings of the config.

    Raises:
        ValueError: If half of the images cannot be read.

    Example:
        mmmoco stats /data/sentinel --bands --exclude '*_mask.tif'
    """
    from .dataset_stats import measure, open_source

    dataset, loading = open_source(
        source,
        bands,
        cfg_options,
        dict(include=include, exclude=exclude),
        dict(order=order, nodata=nodata),
    )
    count = len(dataset)
    wanted = min(max_images or count, count)
    if wanted < 1:
        raise UsageError(f'--max-images {wanted}: must be at least 1.')
    indices = [i * count // wanted for i in range(wanted)]
    measured = measure(dataset, loading, indices)
    bad = measured.bad
    if 2 * len(bad) >= wanted:  # The rest may well be masks.
        raise UsageError(
            f'{len(bad)} of {wanted} images could not be read, such as '
            f'{bad[0].name!r}: {bad[0].reason}. Measure bands with --bands; '
            'leave out what is no image with --exclude PATTERN.'
        )
    for each in bad:
        sys.stderr.write(f'bad file {each.name!r}: {each.reason}\n')
    return measured


@tidy
def label_subset(
    folder: str,
    *,
    percent: float,
    out: Annotated[str, {'metavar': 'FILE'}],
    rest: Annotated[str | None, {'metavar': 'FILE'}] = None,
    seed: int = 0,
) -> dict[str, int]:
    """Write a list "path label" of a part of a folder of class folders.

    It is equally large in every class, and the same for the same seed.

    Args:
        folder: Folder of class folders.
        percent: Share of every class; at least one image of each.
        out: List to write.
        rest: List of the images that were left.
        seed: Of the draw.

    Returns:
        How many images each list has.

    Raises:
        ValueError: If the share is not between 0 and 100.

    Examples:
        mmmoco label-subset data/imagenet/train --percent 1
        --out data/imagenet/train_1pct.txt;
        mmmoco label-subset data/eurosat --percent 80 --seed 42
        --out data/eurosat/train.txt --rest data/eurosat/test.txt
    """
    from mmmoco.datasets import ImageFolderDataset
    from mmmoco.engine.checkpoint_io import write_text
    from mmmoco.messages import log_info

    from .label_subset import split_by_class

    dataset = ImageFolderDataset(folder, with_labels=True)
    labels = dataset.labels or []
    parts = split_by_class(labels, percent, seed)
    written = {}
    for file, part in zip((out, rest), parts, strict=True):
        if file is None:
            continue
        lines = [
            f'{Path(dataset.paths[i]).relative_to(folder)} {labels[i]}\n'
            for i in part
        ]
        write_text(file, ''.join(lines))
        written[file] = len(part)
        log_info(
            f'{file}: {len(part)} of {len(labels)} images, '
            f'{len(dataset.classes)} classes'
        )
    return written


@tidy
def make_shards(
    source: Annotated[str, {'metavar': 'SRC'}],
    out: Annotated[str, {'metavar': 'OUT'}],
    *,
    ann_file: Annotated[str, {'metavar': 'FILE'}] = '',
    labels: bool = False,
    samples_per_shard: int = 1000,
    seed: int = 0,
    shuffle: bool = True,
    extensions: Annotated[Sequence[str] | None, {'metavar': '.EXT'}] = None,
    group_by: Annotated[int | str | None, GROUP] = None,
    force: bool = False,
) -> Written:
    """Write the images of a folder as tar shards, unchanged.

    A run that was stopped goes on where it was.

    Args:
        source: Folder of images.
        out: Folder for the shards.
        ann_file: List of paths relative to SRC, instead of all images below
            it.
        labels: Store classes: the folders directly below SRC, or the numbers
            in FILE.
        samples_per_shard: Images in each; the last one may hold fewer.
        seed: Of the shuffle.
        shuffle: Without it the paths keep their order.
        extensions: Which files are images (.jpg .jpeg .png .bmp .webp .tif
            .tiff).
        group_by: Store groups: a column of FILE, or so many folders of the
            path (1 the first one, -1 all).
        force: Replace other shards in OUT.

    Raises:
        FileExistsError: If there are other shards in OUT.
        ValueError: If a shard would be empty.

    Example:
        mmmoco shards /data/imagenet/train /data/shards
        --labels
    """
    from mmmoco.datasets.image_folder import EXTENSIONS, ImageFolderDataset

    from .shard_writer import write_shards

    images = ImageFolderDataset(
        source,
        ann_file=ann_file,
        with_labels=labels,
        extensions=extensions or EXTENSIONS,
        group_by=group_by,
    )
    order = seed if shuffle else None
    written = write_shards(images, out, samples_per_shard, order, force)
    for bad in written.bad:
        sys.stderr.write(f'left out {bad.name!r}: {bad.reason}\n')
    return written


@tidy
def make_digit_scenes(
    out: Annotated[str, {'metavar': 'OUT'}],
    *,
    num_train: int = 1000,
    num_val: int = 200,
    size: int = 96,
    digits_per_image: Annotated[str, {'metavar': 'N|LOW-HIGH'}] = '1-5',
    seed: int = 0,
    format: Literal['jpg', 'png'] = 'jpg',
    force: bool = False,
) -> Path:
    """Write scenes of handwritten digits to a folder, with ground truth.

    The folder holds the same scenes in four layouts: ImageNet folders, COCO
    instances, VOC2007 and Cityscapes (labelTrainIds: the digits are 0 to 9,
    the canvas is 10). Nothing is downloaded, and equal arguments give equal
    files.

    Args:
        out: Folder to be made.
        num_train: Scenes to train on.
        num_val: Scenes of other digits than those of train.
        size: Side in pixels.
        digits_per_image: Fewer where there is no room for more.
        seed: Of the scenes.
        format: Of the ImageNet folders and so of COCO; VOC is always jpg,
            Cityscapes always png.
        force: Replace the scenes in OUT.

    Returns:
        The folder.

    Raises:
        FileExistsError: If ``out`` is there already and not to be replaced.
        ValueError: If a value makes no sense.
    """
    from mmmoco.datasets.digit_scenes import DigitScenes

    from .digit_export import check_target, export_scenes, number_or_range

    digits = number_or_range(digits_per_image)
    folder = Path(out).expanduser().resolve()
    check_target(folder, force)
    scenes = {
        split: DigitScenes(
            split=split,
            size=size,
            digits_per_image=digits,
            num_scenes=number,
            seed=seed,
        )
        for split, number in (('train', num_train), ('val', num_val))
    }
    export_scenes(folder, scenes, image_format=format, force=force)
    return folder
