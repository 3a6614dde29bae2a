"""Write a folder of images as tar shards, for :class:`TarShards`."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from mmmoco.datasets.bad_files import BadFile, reason_of
from mmmoco.datasets.groups import NONE
from mmmoco.datasets.image_folder import ImageFolderDataset
from mmmoco.datasets.tar_reader import TarReader
from mmmoco.datasets.tar_shards import INDEX_NAME
from mmmoco.engine.checkpoint_io import replace, write_text
from mmmoco.files import open_regular, read_file
from mmmoco.functional import derive_seed
from mmmoco.messages import printable
from mmmoco.progress import track

#: What the shards of a folder are made of; a re-run must agree.
PLAN_NAME = '.plan.json'


class Written(NamedTuple):
    """What a run did.

    Attributes:
        shards: Number of shards, finished ones of earlier runs included.
        new: Shards of this run.
        samples: Images in all shards.
        bad: Files that could not be read and are left out.
        folder: Where they are.
    """

    shards: int
    new: int
    samples: int
    bad: list[BadFile]
    folder: str

    def __str__(self) -> str:
        text = (
            f'\n{self.samples} images in {self.shards} shards in '
            f'{self.folder!r} ({self.new} written now, '
            f'{self.shards - self.new} were there)'
        )
        if self.bad:
            text += f'; {len(self.bad)} files could not be read'
        return f'{text}.'


def write_shards(
    source: ImageFolderDataset,
    out: str | os.PathLike[str],
    samples_per_shard: int = 1000,
    seed: int | None = 0,
    force: bool = False,
) -> Written:
    """Write shards, each complete or not at all; the content is not touched.

    A second run with the same source and settings leaves finished shards
    alone. Equal runs give equal bytes.

    Args:
        source: The images, with labels or without.
        out: Folder for ``000000.tar``, … and ``index.json``.
        samples_per_shard: The last shard may hold fewer.
        seed: Shuffle with it, so that a shard is no single class; None keeps
            the order.
        force: Replace shards of another source or with other settings.

    Raises:
        ValueError: If a shard would be empty.
        FileExistsError: If ``out`` holds other shards, and not ``force``.
    """
    if samples_per_shard < 1:
        raise ValueError(
            f'samples_per_shard={samples_per_shard}: must be at least 1.'
        )
    folder = Path(out).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    order = list(range(len(source)))
    if seed is not None:
        order.sort(key=lambda i: derive_seed(seed, i, 'shards'))
    _claim(folder, _plan(source, samples_per_shard, seed), force)
    starts = range(0, len(order), samples_per_shard)
    names, new = [], 0
    bad: list[BadFile] = []
    for number in track(range(len(starts)), 'Writing shards'):
        names.append(f'{number:06}.tar')
        file = folder / names[-1]
        if file.is_file():
            continue
        start = starts[number]
        chosen = order[start : start + samples_per_shard]
        bad += _write(file, source, chosen)
        new += 1
    shards = [_describe(folder / name) for name in names]
    index = {'classes': list(source.classes), 'shards': shards}
    write_text(folder / INDEX_NAME, json.dumps(index, indent=1))
    total = sum(shard['samples'] for shard in shards)
    return Written(len(shards), new, total, bad, str(out))


def _plan(
    source: ImageFolderDataset, samples_per_shard: int, seed: int | None
) -> dict[str, Any]:
    facts: list[Any] = [source.paths, source.labels]
    if source.groups is not None:
        facts.append(source.groups.tolist())
    digest = hashlib.sha256(json.dumps(facts).encode())
    return {
        'images': len(source),
        'samples_per_shard': samples_per_shard,
        'seed': seed,
        'source': digest.hexdigest(),
    }


def _claim(folder: Path, plan: dict[str, Any], force: bool) -> None:
    """See that the folder is empty or holds shards of the same plan."""
    file, shards = folder / PLAN_NAME, sorted(folder.glob('*.tar'))
    if shards:
        known = json.loads(file.read_text()) if file.is_file() else None
        if known == plan:
            return
        if not force:
            what = 'unknown' if known is None else _in_words(known)
            raise FileExistsError(
                f'{str(folder)!r} holds {len(shards)} shards ({what}); this '
                f'run would write {_in_words(plan)}. Choose another folder, '
                'or --force to replace them.'
            )
        for old in (*shards, folder / INDEX_NAME):
            old.unlink(missing_ok=True)
    write_text(file, json.dumps(plan))


def _in_words(plan: dict[str, Any]) -> str:
    return (
        f'{plan["images"]} images, {plan["samples_per_shard"]} a shard, seed '
        f'{plan["seed"]}, paths {plan["source"][:8]}'
    )


def _write(
    file: Path, source: ImageFolderDataset, chosen: Sequence[int]
) -> list[BadFile]:
    """Write one shard; return what could not be read."""
    bad: list[BadFile] = []

    def fill(stream: IO[bytes]) -> None:
        with tarfile.open(
            fileobj=stream, mode='w', format=tarfile.PAX_FORMAT
        ) as tar:
            for index in chosen:
                path = Path(source.paths[index])
                try:
                    data = read_file(path)
                except OSError as error:
                    name = printable(str(path))
                    bad.append(BadFile(name, reason_of(error)))
                    continue
                key = f'{index:09}'
                _add(tar, f'{key}{path.suffix.lower()}', data)
                if source.labels is not None:
                    label = str(source.labels[index]).encode()
                    _add(tar, f'{key}.cls', label)
                if source.groups is not None:
                    group = int(source.groups[index])
                    name = '' if group == NONE else str(group)
                    _add(tar, f'{key}.group', name.encode())

    replace(file, fill)
    return bad


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # no time and no owner: equal bytes
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _describe(file: Path) -> dict[str, Any]:
    """Count by the headers, which also shows that the shard is whole."""
    with open_regular(file) as stream:
        found = TarReader(stream, seekable=True)
        stems = {member.name.partition('.')[0] for member in found}
    return {
        'name': file.name,
        'samples': len(stems),
        'bytes': file.stat().st_size,
    }
