"""Folders of images on which a checkpoint is evaluated."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mmengine.config import Config

from mmmoco.apis.cli import UsageError
from mmmoco.apis.config.image_steps import steps_of
from mmmoco.datasets.image_folder import EXTENSIONS
from mmmoco.engine.evaluation import KNN, Evaluation, Splits, build_evaluation
from mmmoco.engine.evaluation.preprocessing import preprocessing_of
from mmmoco.messages import log_info, log_warning
from mmmoco.registry import bare_type

#: What the two parts of a data set are called.
BANKS = ('train', 'training')
QUERIES = ('val', 'valid', 'validation', 'test', 'testing')


class Folder(NamedTuple):
    """Class folders: ``train/CLASS/…`` and ``val/CLASS/…``, or ``CLASS/…``.

    Attributes:
        path: Where.
        leave_one_out: Each image is a query among all others.
        seed: Of the split, where the folder has none.
        patterns: ``include`` and ``exclude`` of ``ImageFolderDataset``.
    """

    path: str
    leave_one_out: bool = False
    seed: int = 0
    patterns: Mapping[str, Sequence[str]] = MappingProxyType({})

    def applied_to(self, cfg: Config) -> Config:
        """Return a config whose k-NN reads the folder.

        Raises:
            FileNotFoundError: If it does not exist.
            UsageError: If it holds no class folders, or one.
        """
        bank, query = _parts(Path(self.path).expanduser())
        kinds: list[dict[str, Any]]
        roots = (bank, query or bank)
        kinds = [dict(data_root=root, **self.patterns) for root in roots]
        for kind, part in zip(kinds, ('bank', 'query'), strict=True):
            if query or self.leave_one_out:
                kind |= dict(type='mmmoco.ImageFolderDataset')
                kind['with_labels'] = True
            else:
                kind |= dict(type='mmmoco.ClassFolderSplit', part=part)
                kind['seed'] = self.seed
        if self.leave_one_out:
            kinds[1] = kinds[0]
        changed = Config(cfg.to_dict())
        changed.knn = {
            **changed.get('knn', {}),
            'bank': loader_of(cfg, kinds[0]),
            'query': loader_of(cfg, kinds[1]),
        }
        return changed

    def build(
        self, evaluation: str | Mapping[str, Any], knn: Mapping[str, Any]
    ) -> tuple[Evaluation, Splits]:
        """Build an evaluation and its data; say how they are divided.

        A small folder has fewer neighbours than are usual.
        """
        chosen = dict(evaluation) if isinstance(evaluation, Mapping) else {}
        chosen = chosen or dict(type=evaluation)
        open_k = bare_type(chosen) == 'KNN' and 'k' not in chosen
        if open_k:
            chosen['k'] = 1
        judge, data = build_evaluation(chosen, knn, seed=0)
        data.folder = dict(folder=self.path, **self.patterns)
        bank, query = (
            len(x.dataset)  # type: ignore[arg-type]
            for x in (data.bank, data.query)
        )
        classes = len(getattr(data.bank.dataset, 'classes', ()))
        how = f'{bank} images vote on {query} others'
        if self.leave_one_out:
            how = f'each of {bank} images among all others'
        elif bare_type(knn['bank']['dataset']) == 'ClassFolderSplit':
            how += f' (a fifth of each class, drawn with seed {self.seed})'
        log_info(f'{self.path}: {classes} classes; {how}.')
        if isinstance(judge, KNN) and open_k:
            usual = KNN(k=knn.get('k', KNN.k)).ks
            most = max(1, bank // 2)  # More would vote for what is frequent.
            k = tuple(dict.fromkeys(min(each, most) for each in usual))
            judge = replace(judge, k=k)
            if k != usual:
                log_info(f'{self.path}: k={k[-1]}, half of what there is.')
        return judge, data


def has_classes(root: Path) -> bool:
    """Whether the folders directly below are classes, and nothing else."""
    try:
        bank, query = _parts(root)
    except UsageError:
        return False
    if query or bank != str(root):
        log_warning(
            f'{root}: {Path(bank).name!r} and what lies beside it come '
            'without labels into one file, where their paths tell them '
            f'apart. --data {bank} takes that alone, with labels.'
        )
        return False
    return not any(root.glob('*.npy'))


def loader_of(
    cfg: Config, dataset: Mapping[str, Any], size: int | None = None
) -> dict[str, Any]:
    """Return the config of a loader of single images, in their order.

    Args:
        cfg: Says how the network sees them.
        dataset: Config of the data set, without its pipeline.
        size: Side of what it sees instead.
    """
    steps = steps_of(cfg, size)
    sides = preprocessing_of(None, steps).crop or (224,)
    endings: tuple[str, ...] = EXTENSIONS
    if any(bare_type(step) == 'LoadBands' for step in steps):
        endings = (*endings, '.npy')
    return dict(
        # As many pixels as 64 images of 512.
        batch_size=max(1, min(64, (4096 // max(sides)) ** 2)),
        num_workers='auto',
        persistent_workers=False,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='mmmoco.AddressedSampler', shuffle=False),
        dataset={**dataset, 'extensions': endings, 'pipeline': steps},
    )


def _parts(root: Path) -> tuple[str, str | None]:
    """Return the folder of the bank, and that of the queries.

    None: the folder of the bank has to be divided.
    """
    if not root.is_dir():
        raise FileNotFoundError(f'--data {str(root)!r} is no folder.')
    with os.scandir(root) as entries:
        # A class may be called "train", too; then it holds images.
        names = {e.name.lower(): e.path for e in entries if _has_folders(e)}
    bank = next((names[n] for n in BANKS if n in names), None)
    query = next((names[n] for n in QUERIES if n in names), None)
    if bank is None:
        bank, query = str(root), None
    for part in (bank, query):
        if part is not None:
            _require_classes(Path(part))
    return bank, query


def _has_folders(entry: os.DirEntry[str]) -> bool:
    if not entry.is_dir():
        return False
    with os.scandir(entry) as inner:
        return any(e.is_dir() and not e.name.startswith('.') for e in inner)


def _require_classes(folder: Path) -> None:
    """See that there are class folders, and no images beside them."""
    classes = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith('.'):
                continue
            if entry.is_dir():
                classes.append(entry.name)
            elif entry.name.lower().endswith(EXTENSIONS):
                raise UsageError(
                    f'--data {str(folder)!r}: {entry.name!r} lies in no class '
                    'folder. Labels are the folders, as in '
                    'FOLDER/CLASS/image.jpg, or FOLDER/train/CLASS/… and '
                    'FOLDER/val/CLASS/…; without any there is '
                    'extract_features (mmmoco features).'
                )
    if len(classes) < 2:
        found = f'only {classes[0]!r}' if classes else 'none'
        raise UsageError(
            f'--data {str(folder)!r} needs two class folders, and has {found}.'
        )
