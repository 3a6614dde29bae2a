"""Features of images, in a file for use outside."""

import inspect
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmoco.apis.cli import UsageError
from mmmoco.apis.config.adapt import fit_workers
from mmmoco.apis.model import get_model
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io.writing import replace
from mmmoco.engine.evaluation import features
from mmmoco.engine.evaluation.preprocessing import (
    compare_evaluation,
    preprocessor_of,
)
from mmmoco.engine.without_memory import build_without_memory
from mmmoco.messages import library, log_info
from mmmoco.models.algorithms.backbone_only import pooled
from mmmoco.registry import MODELS
from mmmoco.two_phase import TwoPhaseModel

from .folders import has_classes, loader_of

Arrays = dict[str, np.ndarray[Any, Any]]

PREFIX = 'backbone.'
#: What mmpretrain's transformers call what is wanted of them.
OUT_TYPES = {
    'cls': 'cls_token',
    'mean_patch': 'featmap',
    'patch': 'featmap',
    'all': 'raw',
}


class Part(NamedTuple):
    """Which of a network's features.

    Attributes:
        stage: ``'gap'``, ``'cls'``, ``'mean_patch'`` or ``'neck'``: one
            vector an image; ``'patch'`` or ``'all'``: one for each token.
        layer: Block or stage, from 0, or from the end; None: the last.
    """

    stage: str
    layer: int | None = None

    @classmethod
    def of(cls, stage: str, tokens: str | None, layer: int | None) -> 'Part':
        """Return the part that options name.

        Raises:
            UsageError: If they do not go together.
        """
        if tokens is not None and stage not in ('gap', tokens):
            raise UsageError(
                f'--tokens {tokens} and --stage {stage} do not go together.'
            )
        if layer is not None and stage == 'neck':
            raise UsageError(
                f'--layer {layer}: the projection follows the last layer.'
            )
        return cls(tokens or stage, layer)

    def __str__(self) -> str:
        """Say which."""
        return self.stage + (
            '' if self.layer is None else f', layer {self.layer}'
        )


class Encoder(nn.Module):
    """A backbone alone, with its preprocessing, of any OpenMMLab config.

    Args:
        cfg: Config with ``model.backbone``.
        checkpoint: File with its weights under ``backbone.``.
        part: Which features; or the stage alone.

    Attributes:
        grid: Rows and columns of the patch tokens of the last batch.

    Raises:
        CheckpointError: If the weights do not fit exactly.
        ValueError: If stage or layer do not exist in this backbone.
    """

    def __init__(self, cfg: Config, checkpoint: str, part: Part | str) -> None:
        super().__init__()
        self.part = Part(part) if isinstance(part, str) else part
        self.grid: tuple[int, int] | None = None
        settings = cfg.model.backbone.to_dict()
        settings.pop('init_cfg', None)
        scope = cfg.get('default_scope', 'mmmoco')
        if self.part.layer is not None:
            settings['out_indices'] = [self._number(settings, scope)]
        kind = MODELS.get(settings['type'])
        known = inspect.signature(kind).parameters if kind else {}
        if 'gap_before_final_norm' in known and self.part.stage == 'patch':
            settings['gap_before_final_norm'] = False
        with DefaultScope.overwrite_default_scope(scope):
            self.backbone = self._built(settings)
            self.data_preprocessor = MODELS.build(_preprocessor(cfg))
        weights = checkpoint_io.read_weights(checkpoint, PREFIX)
        checkpoint_io.load_into(self.backbone, weights, checkpoint)

    def _built(self, settings: dict[str, Any]) -> nn.Module:
        """Build the backbone so that it gives what is wanted.

        mmpretrain's transformers choose by ``out_type``; others have none,
        and no class token.
        """
        wanted = OUT_TYPES.get(self.part.stage)
        try:
            with_type = {'out_type': wanted} if wanted else {}
            return cast(nn.Module, MODELS.build({**settings, **with_type}))
        except TypeError as error:
            if 'out_type' not in str(error):
                raise
            if self.part.stage == 'patch':  # The pixels of its map.
                return cast(nn.Module, MODELS.build(settings))
            raise ValueError(
                f'{self.part.stage}: {settings["type"]} has no class and '
                'patch tokens; use --stage gap, or --tokens patch for the '
                'pixels of its map.'
            ) from None

    def _number(self, settings: dict[str, Any], scope: str) -> int:
        """Return the number of the layer, from 0."""
        cfg = Config(dict(model=settings, default_scope=scope))
        network: Any = build_without_memory(cfg)
        rows = (getattr(network, n, ()) for n in ('layers', 'stages'))
        count = max(
            *(len(row) for row in rows if isinstance(row, Sized)),
            getattr(network, 'num_stages', 0),
            0,
        )
        layer = self.part.layer or 0
        number = layer + count if layer < 0 else layer
        if not 0 <= number < count:
            has = (
                f'layers 0 to {count - 1}' if count else 'no layers by number'
            )
            raise ValueError(
                f'--layer {layer}: {type(network).__name__} has {has}.'
            )
        return number

    def extract_feat(self, x: Tensor, stage: str = '') -> Tensor:
        """Return N×C features of normalised images; the stage is fixed.

        Of tokens N×(T·C), one after the other.

        Raises:
            ValueError: If the network gives no map where one is needed.
        """
        out = self.backbone(x)
        out = out if isinstance(out, Tensor) else out[-1]
        if self.part.stage in ('patch', 'all'):
            # Tokens that are no map may have others than patches in front.
            fits = out.dim() == (3 if self.part.stage == 'all' else 4)
            if fits and out.dim() == 4:
                self.grid = out.shape[2], out.shape[3]
                out = out.flatten(2).transpose(1, 2)
            if not fits:
                raise ValueError(
                    f'--tokens {self.part.stage}: '
                    f'{type(self.backbone).__name__} gives '
                    f'{tuple(out.shape)}, which is no map and no tokens.'
                )
            self.tokens = out.shape[1]
            return out.flatten(1)
        return pooled(out)

    #: Tokens of each image in the last batch.
    tokens: int = 0


def _preprocessor(cfg: Config) -> dict[str, Any]:
    """Return our preprocessor with the mean and std of the config."""
    given = preprocessor_of(cfg)
    if not given or given.get('mean') is None:
        raise ValueError(
            'The config has no data_preprocessor with mean and std: which '
            'normalisation the backbone was trained with must be known.'
        )
    return dict(
        type='mmmoco.ViewAugmentor', mean=given['mean'], std=given['std']
    )


def _neck(cfg: Config, checkpoint: str) -> Any:
    model: Any = get_model(cfg, checkpoint)
    if not isinstance(model, TwoPhaseModel):
        raise ValueError(
            f'--stage neck: {type(model).__name__} is no pre-training model; '
            'use gap, cls or mean_patch.'
        )
    return model


def loader_settings(
    cfg: Config,
    split: str,
    images: str | None,
    size: int | None,
    patterns: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return the config of a data loader.

    Args:
        cfg: Config with ``knn``, unless there are ``images``.
        split: ``'bank'`` or ``'query'`` of it.
        images: Folder to take instead.
        size: Side of what the network sees of them; None: the config's.
        patterns: Of the folder's files.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is neither.
    """
    if images:
        root = Path(images).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f'--data {images!r} is no folder.')
        folder = dict(
            type='mmmoco.ImageFolderDataset',
            data_root=images,
            with_labels=has_classes(root),
            **patterns,
        )
        cfg.knn = {'bank': loader_of(cfg, folder, size)}
        split = 'bank'
    elif split not in (cfg.get('knn') or {}):
        raise ValueError(
            f'The config has no knn.{split}: name a folder with --data.'
        )
    fit_workers(cfg)
    settings: dict[str, Any] = cfg.knn[split]
    return settings


def features_of(
    cfg: Config,
    checkpoint: str,
    settings: dict[str, Any],
    part: Part,
    folder: str | None,
) -> tuple[features.Extracted, Any, Any]:
    """Return features, the data set that they are of, and the model.

    Args:
        cfg: Config of the model.
        checkpoint: File with its weights.
        settings: Config of a data loader.
        part: Which features.
        folder: Keep them in a file there, mapped into memory.
    """
    init_default_scope(cfg.get('default_scope', 'mmmoco'))
    loader = Runner.build_dataloader(settings, seed=0)
    pipeline = settings['dataset'].get('pipeline')
    compare_evaluation(cfg, checkpoint, {'the images': pipeline})
    model = (
        _neck(cfg, checkpoint)
        if part.stage == 'neck'
        else Encoder(cfg, checkpoint, part)
    )
    model = model.to(get_device())
    found = features.extract(
        model,
        loader,
        part.stage,
        labelled=False,
        share=folder is not None,
        folder=folder,
    )
    return found, loader.dataset, model


def extract(
    cfg: Config,
    checkpoint: str,
    settings: dict[str, Any],
    part: Part,
    out: str,
) -> Arrays:
    """Extract features and write them.

    Args:
        cfg: Config of the model.
        checkpoint: File with its weights.
        settings: Config of a data loader.
        part: Which features.
        out: File to write.

    Raises:
        ValueError: If this model has no such features.
    """
    by_token = part.stage in ('patch', 'all')
    with tempfile.TemporaryDirectory(dir=Path(out).resolve().parent) as folder:
        # Tokens of many images do not fit the memory.
        place = folder if by_token else None
        found, dataset, model = features_of(
            cfg, checkpoint, settings, part, place
        )
    arrays = {'features': found.values.cpu().numpy()}
    if by_token:
        shape = (len(found.ids), model.tokens, -1)
        arrays['features'] = arrays['features'].reshape(shape)
        if model.grid:
            arrays['grid'] = np.array(model.grid)
    arrays['ids'] = found.ids.cpu().numpy()
    labelled = found.labels.shape[1:] != (0,)
    if labelled:
        arrays['labels'] = found.labels.cpu().numpy()
    known = getattr(dataset, 'paths', None)
    paths = [known[i] for i in arrays['ids']] if known else []
    write(Path(out), arrays, paths)
    rows, *tokens, columns = arrays['features'].shape
    each = f'{tokens[0]} tokens of ' if tokens else ''
    log_info(
        f'{out}: {rows} features of {each}{columns} numbers ({part}), '
        f'{"with" if labelled else "without"} labels.'
    )
    return arrays


def write(out: Path, arrays: Arrays, paths: Sequence[str]) -> None:
    """Write features, ids, labels and paths; whole or not at all.

    Args:
        out: ``.npz`` (``paths`` an array of text), ``.safetensors``
            (``paths`` JSON in its metadata) or ``.parquet`` (a row for each
            image; the tokens of one follow each other in it, and their shape
            is in the metadata).
        arrays: By name.
        paths: Of the images, as far as they are files.
    """
    if out.suffix == '.npz':
        if paths:
            arrays = {**arrays, 'paths': np.array(paths)}
        replace(out, lambda file: _fill_npz(file, arrays))
        return
    if out.suffix == '.parquet':
        content = _parquet(arrays, paths, str(out))
        replace(out, lambda file: file.write(content))
        return
    numpy = library('safetensors.numpy', str(out))
    content = numpy.save(arrays, {'paths': json.dumps(list(paths))})
    replace(out, lambda file: file.write(content))


def _fill_npz(file: Any, arrays: Arrays) -> None:
    # numpy.savez wants a file that can be read, or a path.
    with zipfile.ZipFile(file, 'w') as archive:
        for name, array in arrays.items():
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _parquet(arrays: Arrays, paths: Sequence[str], out: str) -> Any:
    """Return the content of a table with a row for each image."""
    arrow = library('pyarrow', out)
    parquet = library('pyarrow.parquet', out)
    columns = {'path': arrow.array(paths)} if paths else {}
    for name, array in arrays.items():
        if name == 'grid':
            continue
        if array.ndim == 1:
            columns[name] = arrow.array(array)
            continue
        rows = array.reshape(len(array), -1)
        flat = arrow.array(rows.reshape(-1))
        columns[name] = arrow.FixedSizeListArray.from_arrays(
            flat, rows.shape[1]
        )
    told = {'shape': json.dumps(arrays['features'].shape[1:])}
    if 'grid' in arrays:
        told['grid'] = json.dumps(arrays['grid'].tolist())
    sink = arrow.BufferOutputStream()
    table = arrow.table(columns).replace_schema_metadata(told)
    parquet.write_table(table, sink)
    return sink.getvalue()
