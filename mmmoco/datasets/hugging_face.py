"""Data sets of Hugging Face's ``datasets``, in memory or as a stream."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmmoco.functional import derive_seed
from mmmoco.messages import library, shortened
from mmmoco.registry import DATASETS

from .addressed import AddressedDataset
from .groups import group_number, group_numbers
from .shard_stream import Record, ShardStream
from .transforms.loading import decoding
from .value_range import check_ranges


@DATASETS.register_module()
class HFDataset(AddressedDataset):
    """A map-style data set of ``datasets`` (extra ``hf``).

    Args:
        data_root: A folder of ``save_to_disk``; or the first argument of
            ``load_dataset``: a builder (``'imagefolder'``, ``'parquet'``) or
            the name of a data set on the hub.
        split: Which split, for example ``'train'``.
        image_key: Column of the images.
        label_key: Column of the classes; None: without labels.
        options: Further arguments of ``load_dataset``, for example
            ``dict(data_files='*.parquet')`` or ``dict(data_dir=…)``.
        pipeline: Configs of transforms.
        group_by: Column that names the group of an image (see ``exclude`` of
            the dictionaries).

    Raises:
        ImportError: If ``datasets`` is missing.
        ValueError: If a column does not exist.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        image_key: str = 'image',
        label_key: str | None = None,
        options: dict[str, Any] | None = None,
        pipeline: Sequence[dict[str, Any]] = (),
        group_by: str | None = None,
    ) -> None:
        super().__init__(pipeline)
        keys = image_key, label_key, group_by
        self.data = _load(data_root, split, options, keys, streaming=False)
        self.data_root, self._keys = data_root, keys
        feature = self.data.features.get(label_key) if label_key else None
        self.classes = tuple(getattr(feature, 'names', None) or ())
        if group_by is not None:
            self.groups = group_numbers(self.data[group_by])
        self.grouped = self.groups is not None
        check_ranges(self)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.data)

    def name_of(self, index: int) -> str:
        """Return data set and row."""
        return f'{self.data_root}[{index}]'

    def sample(self, index: int) -> dict[str, Any]:
        """Return image, position and, with ``label_key``, class."""
        name = self.name_of(index)
        with decoding(name, 'read row'):
            row = self.data[index]
        return _to_sample(row, index, name, *self._keys)


@DATASETS.register_module()
class HFStream(ShardStream):
    """A streamed data set of ``datasets`` (extra ``hf``).

    Its shards (usually its files) are dealt to processes and lanes as tar
    shards are; what is passed over on a resume is read, but not decoded.

    Args:
        data_root: As for :class:`HFDataset`.
        epoch_size: Samples of one epoch, over all processes.
        split: Which split, for example ``'train'``.
        image_key: Column of the images.
        label_key: Column of the classes; None: without labels.
        options: Further arguments of ``load_dataset``.
        lanes: As for :class:`ShardStream`.
        buffer_size: As for :class:`ShardStream`.
        pipeline: Configs of transforms.
        group_by: As for :class:`HFDataset`.

    Raises:
        ImportError: If ``datasets`` is missing.
        ValueError: If a column does not exist.
    """

    def __init__(
        self,
        data_root: str,
        epoch_size: int,
        split: str = 'train',
        image_key: str = 'image',
        label_key: str | None = None,
        options: dict[str, Any] | None = None,
        lanes: int | None = None,
        buffer_size: int = 1000,
        pipeline: Sequence[dict[str, Any]] = (),
        group_by: str | None = None,
    ) -> None:
        keys = image_key, label_key, group_by
        self.grouped = group_by is not None
        self.data = _load(data_root, split, options, keys, streaming=True)
        self.data_root, self._keys = data_root, keys
        super().__init__(
            self.data.num_shards, epoch_size, lanes, buffer_size, pipeline
        )

    def shard_name(self, shard: int) -> str:
        """Return data set and number of the shard."""
        return f'{self.data_root}, shard {shard}'

    def read_shard(self, shard: int) -> Iterator[Record]:
        """Go through a shard; images keep their id in every epoch.

        Raises:
            OSError: If it cannot be read any further.
        """
        part = iter(self.data.shard(num_shards=self.num_shards, index=shard))
        for number in itertools.count():
            with decoding(self.shard_name(shard), 'read on in'):
                row = next(part, None)
            if row is None:
                return
            name = f'{self.shard_name(shard)}, row {number}'
            identity = derive_seed(0, self.data_root, shard, number)
            load = partial(_to_sample, row, identity, name, *self._keys)
            yield Record(name, load)


def _load(
    data_root: str,
    split: str,
    options: dict[str, Any] | None,
    keys: tuple[str | None, ...],
    streaming: bool,
) -> Any:
    """Open a data set; its images are left to our own loader.

    That one knows what to do with bad files.

    Raises:
        ImportError: If ``datasets`` is missing.
        ValueError: If there is no such split or column.
    """
    datasets = library('datasets', 'This data set')
    folder = Path(data_root).expanduser()
    stored = ('dataset_info.json', 'dataset_dict.json')
    if any((folder / name).is_file() for name in stored):
        data = datasets.load_from_disk(str(folder))
        if isinstance(data, datasets.DatasetDict):
            if split not in data:
                raise ValueError(
                    f'{data_root!r} has no split {split!r}, but '
                    f'{", ".join(data)}.'
                )
            data = data[split]
        if streaming:
            files = max(1, len(data.cache_files))
            data = data.to_iterable_dataset(num_shards=files)
    else:
        data = datasets.load_dataset(
            data_root, split=split, streaming=streaming, **(options or {})
        )
    # None: known only after the first row.
    names = data.column_names or list(next(iter(data), {}))
    for name in keys:
        if name is not None and name not in names:
            raise ValueError(
                f'{data_root!r} has no column {name!r}, but '
                f'{", ".join(names)}: set image_key, label_key, group_by.'
            )
    image = (data.features or {}).get(keys[0])
    if isinstance(image, datasets.Image):
        data = data.cast_column(keys[0], datasets.Image(decode=False))
    return data


def _to_sample(
    row: dict[str, Any],
    identity: int,
    name: str,
    image_key: str,
    label_key: str | None,
    group_by: str | None,
) -> dict[str, Any]:
    """Return what the first transform receives.

    Raises:
        OSError: If the row holds no image, or no number as its label.
    """
    image = row[image_key]
    result: dict[str, Any] = {'img_path': name, 'sample_idx': identity}
    if isinstance(image, dict) and image.get('bytes'):
        result['img_bytes'] = image['bytes']
    elif isinstance(image, dict) and image.get('path'):
        result['img_path'] = image['path']
    elif isinstance(image, bytes):
        result['img_bytes'] = image
    elif image is None or isinstance(image, dict):
        raise OSError('the row holds no image')
    else:
        with decoding(name):  # A PIL image, an array or lists.
            result['img'] = np.asarray(image)
    if label_key is not None:
        with decoding(name, f'take {shortened(row[label_key])} as label of'):
            result['gt_label'] = int(row[label_key])
    if group_by is not None:
        result['group'] = group_number(row[group_by])
    return result
