"""The backbone of a checkpoint, written for another library."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from torch import Tensor

import mmmoco
from mmmoco.apis import cli
from mmmoco.apis.config.adapt import method_class
from mmmoco.apis.config.files import load_config
from mmmoco.apis.config.from_checkpoint import told_backbone, told_model
from mmmoco.convert.anatomy import below, family_of
from mmmoco.convert.exporting import TARGETS, rename_backbone
from mmmoco.engine import checkpoint_io
from mmmoco.engine.architecture import architecture_of
from mmmoco.engine.evaluation.preprocessing import (
    Preprocessing,
    preprocessing_of_checkpoint,
    preprocessing_of_training,
    recorded,
)
from mmmoco.engine.results import config_hash
from mmmoco.engine.without_memory import build_without_memory, check_complete
from mmmoco.messages import clipped, shortened
from mmmoco.registry import bare_type, value_at
from mmmoco.two_phase import TwoPhaseModel

from .weight_files import encode

#: An identifier of the Hub.
LICENCE = re.compile(r'[A-Za-z0-9][\w.+-]{0,63}')
#: How the file is loaded there: by target, for a ResNet and for a ViT.
LOADING = {
    'mmpretrain': "init_cfg=dict(type='Pretrained', checkpoint='{path}', "
    "prefix='backbone.')",
    'mmseg-vit': "mmseg.VisionTransformer: init_cfg=dict(type='Pretrained', "
    "checkpoint='{path}'), patch_bias=True, final_norm=True, qkv_bias=True",
    'torchvision': "{stem}model.load_state_dict(torch.load('{path}')"
    "['state_dict'], strict=False)  # the classifier stays as it is",
    'timm': 'timm.create_model({name}, num_classes=0, {channels}'
    "checkpoint_path='{path}').eval()",
    'detectron2': 'MODEL.WEIGHTS {path}, MODEL.RESNETS.STRIDE_IN_1X1 False, '
    'INPUT.FORMAT RGB, MODEL.PIXEL_MEAN [123.675, 116.28, 103.53], '
    'MODEL.PIXEL_STD [58.395, 57.12, 57.375]',
    'safetensors': "safetensors.torch.load_file('{path}')",
}


class Source(NamedTuple):
    """A backbone and what its checkpoint tells about it.

    Attributes:
        path: The checkpoint.
        backbone: Tensors by our names, without ``backbone.``.
        config: Config of the backbone.
        scope: Where types without a scope are looked up.
        meta: What goes into the exported file.
        cfg: Config of the run, where known.
        seen: How images reached it, where known.
    """

    path: str
    backbone: dict[str, Tensor]
    config: Mapping[str, Any]
    scope: str
    meta: dict[str, Any]
    cfg: Config | None
    seen: Preprocessing | None = None


class Exported(NamedTuple):
    """A file or a folder that was written.

    Attributes:
        path: Where; that of a file has the hash in its name.
        tensors: Number of tensors in it.
        encoder: ``'query'`` or ``'key'``.
        loading: How it is loaded there.
        notes: What is not as one might expect.
    """

    path: Path
    tensors: int
    encoder: str
    loading: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say what was written, and how to load it."""
        lines = [
            f'{self.tensors} tensors of the {self.encoder} encoder written '
            f'to {self.path}',
            f'Load it: {self.loading}',
            *(f'Note: {note}' for note in self.notes),
        ]
        return '\n'.join(lines)


def write(source: Source, stem: Path, target: str) -> Exported:
    """Write a backbone, if it is whole.

    Args:
        source: The backbone.
        stem: Of the new file, from :func:`stem_of`.
        target: A key of ``TARGETS``.

    Raises:
        CheckpointError: If tensors are missing, unknown or of other shapes.
        ValueError: If the library has no such backbone.
    """
    check_complete(
        source.backbone, source.config, source.scope, source=source.path
    )
    weights = rename_backbone(source.backbone, target)
    suffix = TARGETS[target].suffix
    content = encode(weights, {**source.meta, 'target': target}, suffix)
    digest = hashlib.sha256(content).hexdigest()[:8]
    path = stem.with_name(f'{stem.name}-{digest}{suffix}')
    checkpoint_io.write_bytes(path, content)
    encoder = source.meta['encoder']
    loading = _loading(path, target, source)
    told = source.meta.get('license')
    notes = (f'the weights are under {told}',) if told else ()
    return Exported(
        path, len(weights), encoder, loading, (*notes, *terms(source))
    )


def terms(source: Source) -> tuple[str, ...]:
    """Say whose licence may bind the weights too: those of teachers."""
    return tuple(
        f'distilled from {shortened(network)}, licence: {shortened(licence)}. '
        'These weights may fall under the same terms.'
        for network, licence in source.meta.get('teachers', {}).items()
    )


def read_source(
    checkpoint: str,
    encoder: str = 'query',
    config: str | Config | None = None,
    num_heads: int | None = None,
) -> Source:
    """Read the backbone of one encoder, with what is known about it.

    Args:
        checkpoint: File of a pre-training run.
        encoder: ``'query'`` or ``'key'``.
        config: Config of the run, if the checkpoint does not hold it.
        num_heads: Of a ViT without a config.

    Raises:
        FileNotFoundError: If checkpoint or config do not exist.
        CheckpointError: If it cannot be read, or holds no such encoder.
    """
    cfg = load_config(config) if config else None
    content = checkpoint_io.read(checkpoint)
    weights = checkpoint_io.state_dict_of(content)
    prefix = 'backbone.'
    if encoder == 'key':
        prefix = f'{_key_encoder_name(content)}.backbone.'
    backbone = below(weights, prefix)
    if not backbone:
        tops = sorted({name.split('.')[0] for name in weights})
        mend = (
            'Export the query encoder.'
            if encoder == 'key' and 'backbone' in tops
            else 'If it comes from another library, use mmmoco import first.'
        )
        raise checkpoint_io.CheckpointError(
            f'{checkpoint} holds no {prefix}*, only {", ".join(tops[:10])}. '
            f'{mend}'
        )
    meta = content.get('meta') or {}
    scope = 'mmmoco'
    seen = preprocessing_of_checkpoint(meta)
    told_cfg = _config_of(meta)  # As it was run; results name its hash.
    if cfg is not None:
        seen = preprocessing_of_training(cfg)
        described = cfg.model.backbone.to_dict()
        scope = cfg.get('default_scope', scope)
    else:
        cfg = told_cfg
        given = cfg.model.backbone.to_dict() if cfg else None
        if cfg is None and num_heads is None:
            given = told_model(meta, {}).get('backbone')
        described = told_backbone(given, backbone, checkpoint, num_heads)
    told = {
        'method': (cfg and cfg.model.get('type')) or method_of(content),
        'epochs': meta.get('epoch') or None,  # 0: it counts iterations.
        'iterations': meta.get('iter'),
        'config_hash': config_hash(told_cfg or cfg) if cfg else None,
        'source': Path(checkpoint).name,
        'encoder': encoder,
        'teachers': teachers_of(meta, cfg) or None,
        'input_range': cfg.get('input_range') if cfg else None,
        'backbone': described,
        'architecture': architecture_of(
            build_without_memory(
                Config(dict(model=dict(described), default_scope=scope))
            )
        ),
        'preprocessing': recorded(seen),
        'license': licence_of(meta),
        'mmmoco_version': mmmoco.__version__,
    }
    known = {k: v for k, v in told.items() if v is not None}
    return Source(checkpoint, backbone, described, scope, known, cfg, seen)


def method_of(content: Mapping[str, Any]) -> str | None:
    """Return the method that made a checkpoint, such as ``'MoCoV2'``.

    Args:
        content: A training checkpoint, or an exported backbone.

    Returns:
        None if nothing in it tells.
    """
    told = recorded_method(content)
    return told or _method_of(checkpoint_io.state_dict_of(content))


def teachers_of(
    meta: Mapping[str, Any], cfg: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return the teachers of a distilled student, and their licences.

    Args:
        meta: ``'meta'`` of its checkpoint.
        cfg: Config of its run, where known.

    Returns:
        By network; empty if it had none.
    """
    told = meta.get('teachers')
    if not isinstance(told, Mapping):  # Until then the config told.
        teacher = cfg['model'].get('teacher') if cfg else None
        told = {}
        if isinstance(teacher, Mapping):
            told[bare_type(teacher)] = None
    return {
        clipped(str(network), 80): clipped(str(licence or 'unknown'), 80)
        for network, licence in [*told.items()][:8]
    }


def recorded_method(content: Mapping[str, Any]) -> str | None:
    """Return the method that a checkpoint says it was made by."""
    meta = content.get('meta') or {}
    cfg = _config_of(meta)
    told = meta.get('method') or (cfg and cfg.model.get('type'))
    return told if isinstance(told, str) else None


def licence_of(meta: Mapping[str, Any]) -> str | None:
    """Return that of the weights, if their file tells an identifier."""
    told = meta.get('license')
    fits = isinstance(told, str) and LICENCE.fullmatch(told)
    return told if fits else None


def _key_encoder_name(content: Mapping[str, Any]) -> str:
    told = value_at(content, 'meta.key_encoder')
    if isinstance(told, str):
        return told
    method = method_class(method_of(content)) or TwoPhaseModel
    return method.key_encoder_name


def _config_of(meta: Mapping[str, Any]) -> Config | None:
    """The config stored in a checkpoint; None if there is none to read."""
    told = checkpoint_io.config_in(meta) or {}
    model = told.get('model')
    if isinstance(model, dict) and isinstance(model.get('backbone'), dict):
        return Config(told)
    return None


def _method_of(weights: Mapping[str, Tensor]) -> str | None:
    tops = {name.split('.')[0] for name in weights}
    for top, method in (
        ('dense_dictionary', 'DenseCL'),
        ('heads', 'MMC'),
        ('teacher', 'Distillation'),
        ('predictor', 'MoCoV3'),
    ):
        if top in tops:
            return method
    if 'neck.fc.weight' in weights:
        return 'MoCoV1'
    return 'MoCoV2' if 'neck.mlp.0.weight' in weights else None


def stem_of(out: str, checkpoint: str, target: str) -> Path:
    """Return the place of the new file, without hash and suffix.

    Args:
        out: Its name, or a folder.
        checkpoint: Gives the name in a folder.
        target: A key of ``TARGETS``.

    Raises:
        UsageError: If the name ends in another suffix than is written.
    """
    path = Path(out).expanduser()
    if path.is_dir() or out.endswith('/'):
        return path / f'{Path(checkpoint).stem}_{target}'
    suffix = TARGETS[target].suffix
    if path.suffix in ('.pth', '.pkl', '.safetensors'):
        if path.suffix != suffix:
            raise cli.UsageError(
                f'{out}: --to {target} writes a file ending in {suffix}.'
            )
        path = path.with_suffix('')
    return path


def _loading(path: Path, target: str, source: Source) -> str:
    if target == 'mmdet' or (
        target == 'mmseg' and family_of(source.backbone) != 'vit'
    ):
        target = 'mmpretrain'
    elif target == 'mmseg':
        target = 'mmseg-vit'
    is_vit = family_of(source.backbone) == 'vit'
    channels = source.config.get('in_channels', 3)
    name, stem = '', ''
    if bare_type(source.config) in ('ResNet', 'MoCoV3ResNet'):
        name = f'resnet{source.config.get("depth", 50)}'
        stem = f'model = torchvision.models.{name}(); '
    if channels != 3 and target == 'torchvision':
        first = 'patch_embed.projection' if is_vit else 'conv1'
        width, _, kernel, _ = source.backbone[f'{first}.weight'].shape
        # As wide a step as the patches; the stem of a ResNet halves.
        rest = f'{kernel}' if is_vit else f'2, {kernel // 2}, bias=False'
        stem += (
            f'model.{"conv_proj" if is_vit else "conv1"} = torch.nn.Conv2d('
            f'{channels}, {width}, {kernel}, {rest}); '
        )
    line = LOADING[target].format(
        path=path,
        stem=stem,
        channels=f'in_chans={channels}, ' if channels != 3 else '',
        name=repr(name) if name else 'name',
    )
    arch = source.config.get('arch')
    heads = arch.get('num_heads') if isinstance(arch, Mapping) else arch
    if is_vit and heads:
        line += f' (heads of the attention: {heads}; no tensor tells them)'
    return line
