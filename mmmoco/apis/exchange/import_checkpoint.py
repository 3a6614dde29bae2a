"""The checkpoint of another library, taken in whole."""

import pprint
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.utils import to_2tuple

from mmmoco.apis import cli
from mmmoco.apis.config.adapt import method_class
from mmmoco.convert.anatomy import (
    below,
    describe_backbone,
    describe_model,
    family_of,
)
from mmmoco.convert.flattened import flattened
from mmmoco.convert.format import LICENSE_LINKS
from mmmoco.convert.importing import (
    Imported,
    count_by_module,
    import_weights,
    resize_all_positions,
)
from mmmoco.convert.preprocessing import preprocessing_of
from mmmoco.engine import checkpoint_io
from mmmoco.engine.architecture import architecture_of
from mmmoco.engine.evaluation.preprocessing import (
    preprocessing_of_checkpoint,
    recorded,
)
from mmmoco.engine.without_memory import build_without_memory, check_complete
from mmmoco.registry import bare_type

from .export_backbone import licence_of, recorded_method, teachers_of
from .weight_files import encode

#: What training can begin without, and what happens then.
MAY_BE_ABSENT = {
    'neck': 'starts untrained',
    'predictor': 'starts untrained',
    'key_encoder': 'starts as a copy of the query encoder',
    'dictionary': 'starts with random keys',
    'dense_dictionary': 'starts with random keys',
}


class Import(NamedTuple):
    """What was carried over.

    Attributes:
        source: The foreign file.
        imported: Weights and the recognised layout.
        model: Config that the weights fill: a whole model, or a backbone.
        absent: Parts of that model that the file lacks.
        preprocessing: Mean, std, order of the channels and range of the
            values that its network was trained with; None: not known.
        epoch: Of the foreign run, if the file tells.
        license: Of the weights, if file or layout tell.
        teachers: From whom they were distilled, with licences.
        path: The new file.
    """

    source: str
    imported: Imported
    model: dict[str, Any]
    absent: list[str]
    preprocessing: dict[str, Any] | None
    epoch: int | None
    license: str | None
    teachers: dict[str, str]
    path: str | None = None

    def __str__(self) -> str:
        """Say in words what was carried over and what was not."""
        imported, model, eyes = self.imported, self.model, self.preprocessing
        counts = count_by_module(imported.weights)
        carried = ', '.join(f'{name} {n}' for name, n in counts.items())
        lines = [
            f'Recognised: {imported.format.title} ({imported.format.name})',
            f'Carried over: {len(imported.weights)} entries ({carried})',
            f'Left behind: {len(imported.left)} entries',
        ]
        for reason in dict.fromkeys(imported.left.values()):
            names = [k for k, why in imported.left.items() if why == reason]
            if len(names) > 10:
                tops = count_by_module(names)
                names = [f'{top}.* ({n})' for top, n in tops.items()]
            lines.append(f'  {reason}: {", ".join(names)}')
        lines += [
            f'Not in the file: {name} ({MAY_BE_ABSENT[name]})'
            for name in self.absent
        ]
        lines += [f'Note: {note}' for note in imported.notes]
        if eyes is None:
            lines.append(
                'Preprocessing: not known from this file; give the data '
                'preprocessor the mean and std that its authors used.'
            )
        else:
            lines.append(
                f'Preprocessing: mean {eyes["mean"]}, std {eyes["std"]}, '
                f'{eyes["channel_order"]}, values up to {eyes["value_range"]}'
            )
        if name := imported.format.license:
            lines.append(
                f'Licence: {name}, under which weights of this layout are '
                f'published ({LICENSE_LINKS[name]})'
            )
        lines += [
            f'Distilled from {network}, licence {licence}'
            for network, licence in self.teachers.items()
        ]
        lines.append('The state of the optimizer is not carried over.')
        backbone = model.get('backbone', model)
        arch = backbone.get('arch')
        given = arch if isinstance(arch, Mapping) else backbone
        heads = given.get('num_heads')
        if heads and imported.told.num_heads is None:
            lines.append(
                f'Note: {heads} heads of attention; no tensor tells their '
                'number. Correct it with --num-heads if the source had '
                'another.'
            )
        what = 'model' if 'backbone' in model else 'backbone'
        lines += [
            f'Every shape fits this {what}:',
            pprint.pformat(model, sort_dicts=False, width=77),
            f'Written: {self.path}',
        ]
        return '\n'.join(lines)


def read_foreign(
    source: str,
    cfg: Config | None = None,
    layout: str | None = None,
    img_size: int | None = None,
    num_heads: int | None = None,
    drop: Sequence[str] = (),
) -> Import:
    """Read a foreign checkpoint, with our names.

    Args:
        source: File of another library, read without running code in it.
        cfg: Config that the weights must fit; None: what they tell.
        layout: Key of ``FORMATS``; None: told by the keys.
        img_size: Side of the images to which the position embeddings of a
            ViT are interpolated; None: the config's, or as they are.
        num_heads: Of a ViT without a config.
        drop: Shell patterns of keys to leave behind.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file needs code, is damaged or incomplete.
        ValueError: If its layout is unknown, ambiguous or does not fit.
    """
    content = checkpoint_io.read(source)
    weights = checkpoint_io.state_dict_of(flattened(content))
    imported = import_weights(weights, layout, drop)
    ours = imported.format.name == 'mmmoco'
    method = recorded_method(content) if ours else None
    # What the network is, is told by the positions as they came.
    model = model_of(imported, cfg, num_heads, method)
    _resize(imported, model, cfg, img_size)
    absent = check_imported(imported, model, cfg)
    told = content.get('meta')
    told = told if isinstance(told, Mapping) else {}
    seen = (
        preprocessing_of_checkpoint(told) if 'preprocessing' in told else None
    )
    preprocessing = recorded(seen) or preprocessing_of(
        imported.format, imported.weights, told.get('cfg'), imported.told.seen
    )
    epoch = content.get('epoch')
    epoch = epoch if isinstance(epoch, int) else None
    return Import(
        source,
        imported,
        model,
        absent,
        preprocessing,
        epoch,
        imported.format.license or licence_of(told),
        teachers_of(told, None),
    )


def write(report: Import, out: str) -> Import:
    """Write what was read; return it with its new place."""
    meta: dict[str, Any] = {
        'imported': {
            'format': report.imported.format.name,
            'source': Path(report.source).name,
            'left': sorted(report.imported.left),
            'model': report.model,
        }
    }
    backbone = report.model.get('backbone', report.model)
    meta['architecture'] = architecture_of(
        build_without_memory(Config(dict(model=backbone)))
    )
    if report.epoch is not None:
        meta['imported']['epoch'] = report.epoch
    if report.license:
        meta['license'] = report.license
    if report.teachers:
        meta['teachers'] = report.teachers
    if report.preprocessing is not None:
        meta['preprocessing'] = report.preprocessing
    content = encode(report.imported.weights, meta, Path(out).suffix)
    checkpoint_io.write_bytes(out, content)
    return report._replace(path=out)


def model_of(
    imported: Imported,
    cfg: Config | None = None,
    num_heads: int | None = None,
    method: str | None = None,
) -> dict[str, Any]:
    """Return the config of the network that these weights must fill.

    Args:
        imported: Weights by our names.
        cfg: Config whose model is taken; None: what the tensors tell.
        num_heads: Of a ViT without a config.
        method: That a checkpoint of ours says it was made by.

    Raises:
        ValueError: If the tensors do not tell what network they are of.
    """
    if cfg is not None:
        return dict(cfg.model.to_dict())
    weights = imported.weights
    if any(name.startswith('neck.') for name in weights):
        model = describe_model(weights, num_heads)
        told = method_class(model['type'])
        if method is not None and method_class(method) is not told:
            raise ValueError(
                f'The file is of {method}, which its tensors do not tell '
                f'(they would do for {model["type"]}): give its config with '
                '--config.'
            )
        return model
    heads = num_heads or imported.told.num_heads
    return describe_backbone(below(weights, 'backbone.'), heads)


def _resize(
    imported: Imported,
    model: dict[str, Any],
    cfg: Config | None,
    img_size: int | None,
) -> None:
    """Bring the positions of a ViT to the wanted size, and the config too."""
    backbone = model.get('backbone', model)
    if family_of(below(imported.weights, 'backbone.')) != 'vit':
        if img_size is not None:
            raise cli.UsageError(
                f'--img-size {img_size}: this backbone has no position '
                'embeddings that are made for one size.'
            )
        return
    patch = backbone.get('patch_size', 16)
    if img_size is None and cfg is not None:
        height, width = to_2tuple(backbone.get('img_size', 224))
        if height != width:
            return  # Loading resizes to such a grid, or complains.
        img_size = height
    if img_size is None:
        return
    if img_size % patch or img_size < patch:
        raise cli.UsageError(
            f'--img-size {img_size} is no multiple of the patch size {patch}.'
        )
    changed = resize_all_positions(imported.weights, img_size // patch)
    if changed:
        backbone['img_size'] = img_size
        imported.notes.append(
            f'Position embeddings were interpolated to images of {img_size} '
            f'pixels: {", ".join(changed)}.'
        )


def check_imported(
    imported: Imported, model: Mapping[str, Any], cfg: Config | None = None
) -> list[str]:
    """Check that the weights fill the network; return the parts it lacks.

    Args:
        imported: Weights by our names.
        model: Config of the network, from :func:`model_of`.
        cfg: Where its types are looked up.

    Raises:
        CheckpointError: If a part is there, but not whole.
    """
    weights = imported.weights
    scope = cfg.get('default_scope', 'mmmoco') if cfg else 'mmmoco'
    if 'backbone' not in model:
        check_complete(below(weights, 'backbone.'), model, scope)
        return []
    present = count_by_module(weights)
    absent = [name for name in MAY_BE_ABSENT if name not in present]
    patterns = [f'{name}.*' for name in absent]
    check_complete(weights, model, scope, allow_missing=patterns)
    dictionary = (model.get('dictionary') or {}).get('type', 'InBatch')
    needless = {
        'predictor': 'predictor' not in model,
        'dictionary': dictionary == 'InBatch',
        'dense_dictionary': bare_type(model) != 'DenseCL',
    }
    return [name for name in absent if not needless.get(name)]
