"""Features for use outside: the job behind ``tools/extract_features.py``."""

import argparse
import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmoco.apis import cli
from mmmoco.apis.config.adapt import fit_workers
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.image_range import settle_from
from mmmoco.apis.model import get_model
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io.writing import replace
from mmmoco.registry import MODELS
from mmmoco.two_phase import TwoPhaseModel

from .protocol import same_eyes

STAGES = ('gap', 'cls', 'mean_patch', 'neck')
ENDINGS = ('.npz', '.safetensors')
PREFIX = 'backbone.'


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/extract_features.py``."""
    result = argparse.ArgumentParser(
        prog='extract_features.py',
        description='Write the features of images, with labels and paths, '
        'to a file.',
        epilog='Example: python tools/extract_features.py '
        'configs/mocov2_r50_8xb32.py epoch_200.pth --out features.npz '
        '--images /my/images',
    )
    result.add_argument('config', help='path, name, or package::path')
    result.add_argument(
        'checkpoint', help=f'file with the weights of {PREFIX}*'
    )
    result.add_argument(
        '--out', required=True, metavar='FILE', help='.npz or .safetensors'
    )
    result.add_argument(
        '--stage',
        choices=STAGES,
        default='gap',
        help='average over the pixels of the last map; class token; mean of '
        'the patch tokens; projection of a pre-training model',
    )
    result.add_argument(
        '--split',
        choices=('bank', 'query'),
        default='query',
        help="which images: the config's knn.bank or knn.query",
    )
    result.add_argument(
        '--images', metavar='DIR', help='images below this folder instead'
    )
    result.add_argument('--size', type=int, default=224, help='with --images')
    cli.add_cfg_options(result)
    cli.add_debug(result)
    return result


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

    def extract_feat(self, x: Tensor) -> Tensor:
        """Return N×C features of normalised images."""
        out = self.backbone(x)
        out = out if isinstance(out, Tensor) else out[-1]
        return out.mean((2, 3)) if out.dim() == 4 else out


def _preprocessor(cfg: Config) -> dict[str, Any]:
    """Return our preprocessor with the mean and std of the config."""
    given = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    if not given or given.get('mean') is None:
        raise ValueError(
            'The config has no data_preprocessor with mean and std: which '
            'normalisation the backbone was trained with must be known.'
        )
    return dict(
        type='mmmoco.ViewAugmentor', mean=given['mean'], std=given['std']
    )


def _neck(cfg: Config, checkpoint: str) -> tuple[Any, Callable[..., Tensor]]:
    model: Any = get_model(cfg, checkpoint)
    if not isinstance(model, TwoPhaseModel):
        raise ValueError(
            f'--stage neck: {type(model).__name__} is no pre-training model; '
            'use gap, cls or mean_patch.'
        )
    return model, lambda x: model.extract_feat(x, 'neck')


def _loader(args: argparse.Namespace, cfg: Config) -> tuple[Any, Any]:
    """Return the loader, and the transforms of its data set."""
    if args.images:
        edge = round(args.size * 256 / 224)
        settings: dict[str, Any] = dict(
            batch_size=64,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='mmmoco.AddressedSampler', shuffle=False),
            dataset=dict(
                type='mmmoco.ImageFolderDataset',
                data_root=args.images,
                pipeline=[
                    dict(type='mmmoco.LoadRGB'),
                    dict(type='mmmoco.ToPIL'),
                    dict(type='mmpretrain.torchvision/Resize', size=edge),
                    dict(
                        type='mmpretrain.torchvision/CenterCrop',
                        size=args.size,
                    ),
                    dict(type='mmmoco.PackImage'),
                ],
            ),
        )
    elif args.split in (cfg.get('knn') or {}):
        fit_workers(cfg)
        settings = cfg.knn[args.split]
    else:
        raise ValueError(
            f'The config has no knn.{args.split}: name a folder with --images.'
        )
    loader = Runner.build_dataloader(settings, seed=0)
    return loader, settings['dataset'].get('pipeline')


@torch.no_grad()
def extract(args: argparse.Namespace) -> None:
    """Extract as the command line says.

    Raises:
        ValueError: If the ending of the file or the stage is unknown.
    """
    out = Path(args.out)
    if out.suffix not in ENDINGS:
        raise ValueError(f'--out {args.out}: use {" or ".join(ENDINGS)}.')
    cfg = load_config(args.config, args.cfg_options)
    cli.require_file(args.checkpoint)
    settle_from(cfg, args.checkpoint)
    init_default_scope(cfg.get('default_scope', 'mmmoco'))
    loader, pipeline = _loader(args, cfg)
    same_eyes(cfg, args.checkpoint, {'the images': pipeline})
    device = get_device()
    if args.stage == 'neck':
        model, encode = _neck(cfg, args.checkpoint)
    else:
        model = Encoder(cfg, args.checkpoint, args.stage)
        encode = model.extract_feat
    model.to(device).eval()
    parts: dict[str, list[Tensor]] = {'features': [], 'ids': [], 'labels': []}
    for raw in loader:
        batch = model.data_preprocessor(raw, False)
        ids = batch['ids'].cpu()
        # What stands for an unreadable image is no row of its own.
        good = torch.as_tensor(batch.get('bad', 0)).cpu() == 0
        good = good.expand(len(ids))
        x = encode(batch['inputs']['image'])
        parts['features'].append(x.float().cpu()[good])
        parts['ids'].append(ids[good])
        if 'labels' in batch:
            parts['labels'].append(batch['labels'].cpu()[good])
    arrays = {k: torch.cat(v).numpy() for k, v in parts.items() if v}
    known = getattr(loader.dataset, 'paths', None)
    paths = [known[i] for i in arrays['ids']] if known else []
    left_out = len(loader.dataset) - len(arrays['ids'])
    if left_out:
        lost = sorted(set(range(len(loader.dataset))) - {*arrays['ids']})
        named = [str(known[i]) if known else f'sample {i}' for i in lost[:3]]
        print_log(
            f'{left_out} of {len(loader.dataset)} images could not be read '
            f'and have no row: {", ".join(named)}'
            + (', …' if left_out > len(named) else '.'),
            logger='current',
            level=logging.WARNING,
        )
    write(out, arrays, paths)
    print_log(
        f'{out}: {arrays["features"].shape[0]} features of '
        f'{arrays["features"].shape[1]} numbers ({args.stage}), '
        f'{"with" if "labels" in arrays else "without"} labels.',
        logger='current',
    )


def write(
    out: Path, arrays: dict[str, np.ndarray[Any, Any]], paths: Sequence[str]
) -> None:
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
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise ImportError(
            f"{out} needs safetensors: pip install 'mmmoco[optional]'."
        ) from error
    content = save(arrays, {'paths': json.dumps(list(paths))})
    replace(out, lambda file: file.write(content))


def _fill_npz(file: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    # numpy.savez wants a file that can be read, or a path.
    with zipfile.ZipFile(file, 'w') as archive:
        for name, array in arrays.items():
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/extract_features.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: extract(args), 'extract_features.py', args.debug)
