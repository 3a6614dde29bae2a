"""Features of images, in a file for use outside."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmoco.apis.config.adapt import fit_workers
from mmmoco.apis.model import get_model
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io.writing import replace
from mmmoco.engine.evaluation import features
from mmmoco.engine.evaluation.preprocessing import (
    compare_evaluation,
    preprocessor_of,
)
from mmmoco.messages import library, log_info
from mmmoco.registry import MODELS
from mmmoco.two_phase import TwoPhaseModel

Arrays = dict[str, np.ndarray[Any, Any]]

ENDINGS = ('.npz', '.safetensors')
PREFIX = 'backbone.'


class Encoder(nn.Module):
    """A backbone alone, with its preprocessing, of any OpenMMLab config.

    Args:
        cfg: Config with ``model.backbone``.
        checkpoint: File with its weights under ``backbone.``.
        stage: ``'gap'``, ``'cls'`` or ``'mean_patch'``.

    Raises:
        CheckpointError: If the weights do not fit exactly.
        ValueError: If the stage does not exist in this backbone.
    """

    def __init__(self, cfg: Config, checkpoint: str, stage: str) -> None:
        super().__init__()
        self.stage = stage
        settings = cfg.model.backbone.to_dict()
        settings.pop('init_cfg', None)
        if stage != 'gap':
            # mmpretrain's transformers choose by this; others have no token.
            wanted = 'cls_token' if stage == 'cls' else 'featmap'
            settings['out_type'] = wanted
        scope = cfg.get('default_scope', 'mmmoco')
        with DefaultScope.overwrite_default_scope(scope):
            try:
                self.backbone = MODELS.build(settings)
            except TypeError as error:
                if 'out_type' not in str(error):
                    raise
                raise ValueError(
                    f'--stage {stage}: {settings["type"]} has no class and '
                    'patch tokens; use --stage gap.'
                ) from None
            self.data_preprocessor = MODELS.build(_preprocessor(cfg))
        weights = checkpoint_io.read_weights(checkpoint, PREFIX)
        checkpoint_io.load_into(self.backbone, weights, checkpoint)

    def extract_feat(self, x: Tensor, stage: str = '') -> Tensor:
        """Return N×C features of normalised images; the stage is fixed."""
        out = self.backbone(x)
        out = out if isinstance(out, Tensor) else out[-1]
        return out.mean((2, 3)) if out.dim() == 4 else out


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


def check_ending(out: str) -> None:
    """See that a file can be written in one of the formats.

    Raises:
        ValueError: If its ending is unknown.
    """
    if Path(out).suffix not in ENDINGS:
        raise ValueError(f'--out {out}: use {" or ".join(ENDINGS)}.')


def loader_settings(
    cfg: Config, split: str, images: str | None, size: int
) -> dict[str, Any]:
    """Return the config of a data loader.

    Args:
        cfg: Config with ``knn``, unless there are ``images``.
        split: ``'bank'`` or ``'query'`` of it.
        images: Folder to take instead.
        size: Side of what the network sees of them.

    Raises:
        ValueError: If there is neither.
    """
    if images:
        edge = round(size * 256 / 224)
        return dict(
            batch_size=64,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='mmmoco.AddressedSampler', shuffle=False),
            dataset=dict(
                type='mmmoco.ImageFolderDataset',
                data_root=images,
                pipeline=[
                    dict(type='mmmoco.LoadRGB'),
                    dict(type='mmmoco.ToPIL'),
                    dict(type='mmpretrain.torchvision/Resize', size=edge),
                    dict(type='mmpretrain.torchvision/CenterCrop', size=size),
                    dict(type='mmmoco.PackImage'),
                ],
            ),
        )
    if split not in (cfg.get('knn') or {}):
        raise ValueError(
            f'The config has no knn.{split}: name a folder with --images.'
        )
    fit_workers(cfg)
    settings: dict[str, Any] = cfg.knn[split]
    return settings


def extract(
    cfg: Config,
    checkpoint: str,
    settings: dict[str, Any],
    stage: str,
    out: str,
) -> Arrays:
    """Extract features and write them.

    Args:
        cfg: Config of the model.
        checkpoint: File with its weights.
        settings: Config of a data loader.
        stage: One of those of the tool.
        out: File to write.

    Raises:
        ValueError: If this model has no such stage.
    """
    init_default_scope(cfg.get('default_scope', 'mmmoco'))
    loader = Runner.build_dataloader(settings, seed=0)
    pipeline = settings['dataset'].get('pipeline')
    compare_evaluation(cfg, checkpoint, {'the images': pipeline})
    model = (
        _neck(cfg, checkpoint)
        if stage == 'neck'
        else Encoder(cfg, checkpoint, stage)
    )
    found = features.extract(
        model.to(get_device()), loader, stage, labelled=False
    )
    arrays = {'features': found.values.cpu().numpy()}
    arrays['ids'] = found.ids.cpu().numpy()
    labelled = found.labels.shape[1:] != (0,)
    if labelled:
        arrays['labels'] = found.labels.cpu().numpy()
    known = getattr(loader.dataset, 'paths', None)
    paths = [known[i] for i in arrays['ids']] if known else []
    write(Path(out), arrays, paths)
    rows, columns = arrays['features'].shape
    log_info(
        f'{out}: {rows} features of {columns} numbers ({stage}), '
        f'{"with" if labelled else "without"} labels.'
    )
    return arrays


def write(out: Path, arrays: Arrays, paths: Sequence[str]) -> None:
    """Write features, ids, labels and paths; whole or not at all.

    Args:
        out: ``.npz`` (``paths`` an array of text) or ``.safetensors``
            (``paths`` JSON in its metadata).
        arrays: By name.
        paths: Of the images, as far as they are files.
    """
    if out.suffix == '.npz':
        if paths:
            arrays = {**arrays, 'paths': np.array(paths)}
        replace(out, lambda file: _fill_npz(file, arrays))
        return
    numpy = library('safetensors.numpy', str(out), 'optional')
    content = numpy.save(arrays, {'paths': json.dumps(list(paths))})
    replace(out, lambda file: file.write(content))


def _fill_npz(file: Any, arrays: Arrays) -> None:
    # numpy.savez wants a file that can be read, or a path.
    with zipfile.ZipFile(file, 'w') as archive:
        for name, array in arrays.items():
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
