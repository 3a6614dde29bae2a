"""A folder that can be given away: weights, what they need, a model card.

timm and the Hugging Face Hub read it as it is.
"""

import json
import os
from pathlib import Path

from mmengine.config import Config

from mmmoco.apis import cli
from mmmoco.convert.anatomy import below
from mmmoco.convert.exporting import rename_backbone
from mmmoco.engine import checkpoint_io
from mmmoco.engine.without_memory import build_without_memory, check_complete
from mmmoco.messages import few

from . import model_card
from .export_backbone import LICENCE, Exported, Source, terms
from .figures import figures_of
from .images import Images, images_of
from .timm_model import (
    WRAPPED,
    NoTimmModelError,
    TimmModel,
    timm_model,
    width_of,
)
from .weight_files import encode

WEIGHTS, CONFIG, CARD, ONNX = (
    'model.safetensors',
    'config.json',
    'README.md',
    'model.onnx',
)
#: What --overwrite may remove.
OURS = {WEIGHTS, CONFIG, CARD, ONNX}


def check_place(out: str, license: str, overwrite: bool) -> Path:
    """Return where the folder will stand, if nothing is in its way.

    Args:
        out: The folder.
        license: Of the weights, an identifier of the Hub.
        overwrite: Whether an earlier export may be replaced.

    Raises:
        UsageError: If something else stands there, or the licence is no
            identifier.
    """
    if not LICENCE.fullmatch(license):
        raise cli.UsageError(
            f'--license {license!r}: give an identifier, such as apache-2.0, '
            'cc-by-4.0, other.'
        )
    path = Path(os.path.realpath(Path(out).expanduser()))
    if path.suffix in ('.pth', '.pkl', '.safetensors', '.onnx'):
        raise cli.UsageError(
            f'{out}: --to folder writes a folder; give it another name, or '
            'say with --to for which library the file is.'
        )
    if not path.exists():
        return path
    if not path.is_dir():
        raise cli.UsageError(f'{out} is there, and no folder.')
    found = sorted(os.listdir(path))
    strangers = [name for name in found if name not in OURS]
    if strangers or any(not (path / name).is_file() for name in found):
        raise cli.UsageError(
            f'The folder {out} holds {few(strangers or found)}, which no '
            'export wrote: give a new folder.'
        )
    if found and not overwrite:
        raise cli.UsageError(
            f'The folder {out} holds an export already: give another one, or '
            '--overwrite.'
        )
    return path


def write(
    source: Source, out: Path, license: str = 'unknown', onnx: bool = False
) -> Exported:
    """Write a backbone as a folder, whole or not at all.

    Args:
        source: The backbone.
        out: The folder, from :func:`check_place`; an earlier export in it is
            replaced.
        license: Of the weights; ``'unknown'``: what their file says.
        onnx: Also write ``model.onnx``, checked against the network.

    Raises:
        CheckpointError: If tensors are missing, unknown or of other shapes.
        ImportError: If safetensors or what ONNX needs is not installed.
        ValueError: If the network saw BGR, or ONNX computes something else.
        OSError: If it could not be written. What was there before stays.
    """
    check_complete(
        source.backbone, source.config, source.scope, source=source.path
    )
    model = dict(source.config)
    net = build_without_memory(
        Config(dict(model=model, default_scope=source.scope))
    )
    notes = []
    try:
        theirs: TimmModel | None = timm_model(net, model)
        weights = (
            below(source.backbone, WRAPPED)
            if theirs is not None and theirs.wrapped
            else rename_backbone(source.backbone, 'timm')
        )
    except NoTimmModelError as error:
        theirs, weights = None, dict(source.backbone)
        notes.append(f'{error}: the card says how the weights are loaded')
    images = images_of(source, net)
    if images.mean is None:
        notes.append(
            'the checkpoint does not tell mean and std; timm takes those of '
            'ImageNet: give the config of the run with --config'
        )
    told = source.meta.get('license', license)
    if license == 'unknown':
        license = told
    elif license != told:
        notes.append(f'its file says that the weights are under {told}')
    if license == 'unknown':
        notes.append('no licence was given (--license)')
    notes += terms(source)
    if source.meta.get('encoder') == 'key':
        notes.append('this is the key encoder, the moving average')
    in_config = theirs is not None and not theirs.small_stem
    figures = figures_of(source)
    meta = {**source.meta, 'target': 'folder'}
    with checkpoint_io.replaced_folder(out) as folder:
        content = encode(weights, meta, '.safetensors')
        checkpoint_io.write_bytes(folder / WEIGHTS, content)
        if theirs is not None and in_config:
            text = _config(theirs, images, width_of(net), source, license)
            checkpoint_io.write_text(folder / CONFIG, text)
        takes = ''
        if onnx:
            from .onnx_file import write as write_onnx

            shape = images.channels, *images.size
            takes = write_onnx(source, shape, folder / ONNX)
            notes.append(f'{ONNX} takes {takes}')
        card = model_card.write(
            source, theirs, images, figures, license, takes
        )
        checkpoint_io.write_text(folder / CARD, card)
    loading = (
        f'timm.create_model({f"local-dir:{out}"!r}, pretrained=True).eval()'
        if in_config
        else f'see {out / CARD}'
    )
    encoder = source.meta['encoder']
    return Exported(out, len(weights), encoder, loading, tuple(notes))


def _config(
    model: TimmModel,
    images: Images,
    width: int | None,
    source: Source,
    license: str,
) -> str:
    """Return the text of timm's config.json."""
    pretrained = {
        'tag': model_card.method_name(source).lower() or None,
        'custom_load': False,
        'input_size': [images.channels, *images.size],
        'fixed_input_size': model.fixed_size,
        'interpolation': images.interpolation,
        'crop_pct': images.crop,
        'crop_mode': 'center',
        'mean': images.mean,
        'std': images.std,
        'num_classes': 0,
        'pool_size': None,
        # Named, older versions of timm take its weights for those of RGB.
        'first_conv': model.first_conv if images.channels == 3 else None,
        'classifier': model.classifier,
        'license': license,
    }
    unknown = {'mean', 'std', 'tag'}
    config = {
        'architecture': model.architecture,
        'num_classes': 0,
        'num_features': width,
        'global_pool': model.pool,
        'model_args': model.arguments,
        'pretrained_cfg': {
            name: value
            for name, value in pretrained.items()
            if value is not None or name not in unknown
        },
    }
    return json.dumps(config, indent=2, allow_nan=False) + '\n'
