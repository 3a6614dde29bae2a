"""CIFAR-10 and CIFAR-100 from the archives of their authors."""

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from mmmoco import plain_pickle
from mmmoco.registry import DATASETS

from .addressed import AddressedDataset
from .tar_reader import TarReader

#: Number of classes → file with their names, key of these, key of the labels.
_NAMES = {
    10: ('batches.meta', b'label_names', b'labels'),
    100: ('meta', b'fine_label_names', b'fine_labels'),
}
_FILES = {
    (10, 'train'): [f'data_batch_{i}' for i in range(1, 6)],
    (10, 'test'): ['test_batch'],
    (100, 'train'): ['train'],
    (100, 'test'): ['test'],
}
_SIDE = 32
#: No file of the archives is as large.
_MOST_BYTES = 400 * 2**20


@DATASETS.register_module()
class CIFAR(AddressedDataset):
    """CIFAR-10 or CIFAR-100 as the authors pack them for python.

    The batches are pickles. They are read as plain data, from the archive in
    memory; nothing in them is run.

    Args:
        data_root: ``cifar-10-python.tar.gz``, ``cifar-100-python.tar.gz``,
            the folder that such an archive was unpacked to, or a folder that
            holds one of these.
        split: ``'train'`` or ``'test'``.
        pipeline: Configs of transforms; the first gets an array H×W×C in
            ``img``.

    Raises:
        FileNotFoundError: If the batches are not there.
        ValueError: If they are not what they should be.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        pipeline: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(pipeline)
        if split not in ('train', 'test'):
            raise ValueError(f"CIFAR: split={split!r}: use 'train' or 'test'.")
        place = Path(data_root).expanduser()
        for kind, keys in _NAMES.items():
            meta, names_key, labels_key = keys
            files = _FILES[kind, split]
            found = dict(_read(place, (meta, *files)))
            if meta in found:
                break
        else:
            raise FileNotFoundError(
                f'{data_root!r} is neither cifar-10-python.tar.gz nor '
                'cifar-100-python.tar.gz, nor a folder with one of them or '
                'with what they contain.'
            )
        missing = [name for name in files if name not in found]
        if missing:
            raise FileNotFoundError(
                f'{data_root!r} holds {meta!r} of CIFAR-{kind}, but not '
                f'{", ".join(missing)}.'
            )
        self.classes = _classes(found[meta].get(names_key), meta)
        self.labels: list[int] = []
        batches = []
        for name in files:
            batches.append(_images(found[name], name))
            self.labels += _labels(found[name].get(labels_key), name)
        self.images = np.concatenate(batches)  # N×32×32×3
        if len(self.labels) != len(self.images):
            raise ValueError(
                f'{data_root!r}: {len(self.images)} images, but '
                f'{len(self.labels)} labels.'
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def sample(self, index: int) -> dict[str, Any]:
        """Return image, position and class."""
        return {
            'img': self.images[index].copy(),
            'sample_idx': index,
            'gt_label': self.labels[index],
        }


def _read(
    place: Path, wanted: Sequence[str]
) -> Iterator[tuple[str, dict[bytes, Any]]]:
    """Yield the wanted batches of an archive or a folder."""
    if place.is_dir():
        inner = [p for p in place.glob('cifar-10*-*') if p.is_dir()]
        for folder in (place, *sorted(inner)):
            if all((folder / name).is_file() for name in wanted):
                for name in wanted:
                    yield name, load_batch((folder / name).read_bytes(), name)
                return
        for archive in sorted(place.glob('cifar-10*-python.tar.gz')):
            yield from _read(archive, wanted)
    elif place.is_file():
        try:
            with gzip.open(place) as stream:
                tar = TarReader(cast(IO[bytes], stream), seekable=False)
                for member in tar:
                    name = PurePosixPath(member.name).name
                    if member.size > _MOST_BYTES:
                        raise ValueError(
                            f'{name!r} in {str(place)!r} has '
                            f'{member.size} bytes: this is not CIFAR.'
                        )
                    if member.kind == 'file' and name in wanted:
                        yield name, load_batch(tar.content(member), name)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f'{str(place)!r}: {error}') from error


def _classes(names: Any, file: str) -> tuple[str, ...]:
    if type(names) is not list or not all(type(n) is bytes for n in names):
        raise ValueError(f'{file!r} holds no names of classes.')
    return tuple(name.decode('utf-8', 'backslashreplace') for name in names)


def _labels(labels: Any, file: str) -> list[int]:
    if type(labels) is not list or not all(
        type(label) is int and 0 <= label < 100 for label in labels
    ):
        raise ValueError(f'{file!r} holds no labels of CIFAR.')
    return labels


def _images(batch: dict[bytes, Any], name: str) -> npt.NDArray[np.uint8]:
    data = batch.get(b'data')
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != 3 * _SIDE**2
    ):
        raise ValueError(f'{name!r} holds no images of CIFAR.')
    return data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def load_batch(data: bytes, name: str) -> dict[bytes, Any]:
    """Return the dictionary of a batch, whose text is bytes.

    Args:
        data: A pickle.
        name: For the message.

    Raises:
        ValueError: If it holds anything but plain values and arrays.
    """
    try:
        machine = plain_pickle.Machine(as_bytes=True)
        batch = plain_pickle.finish(machine.run(io.BytesIO(data)))
    except Exception as error:  # A damaged pickle raises almost anything.
        raise ValueError(f'{name!r} cannot be read: {error}') from error
    if not isinstance(batch, dict):
        raise ValueError(f'{name!r} holds a {type(batch).__name__}.')
    return batch
