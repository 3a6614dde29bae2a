"""Weights and configs, from other libraries and for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from mmmoco.apis.cli import UsageError, ending
from mmmoco.apis.process import tidy

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmmoco.convert.openmmlab_config import Converted

    from .export_backbone import Exported
    from .import_checkpoint import Import

Target = Literal[
    'folder',
    'mmpretrain',
    'mmdet',
    'mmseg',
    'torchvision',
    'timm',
    'detectron2',
    'safetensors',
]


@tidy
def export_backbone(
    checkpoint: str,
    out: str,
    *,
    to: Target = 'folder',
    encoder: Literal['query', 'key'] = 'query',
    config: str | Config | None = None,
    num_heads: int | None = None,
    license: str = 'unknown',
    onnx: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write the backbone of a checkpoint: to be given away, or to a library.

    A folder holds model.safetensors in the layout of timm and Hugging Face,
    config.json for timm, and README.md, a model card. All else is one file,
    with the first eight digits of its SHA-256 in its name.

    Args:
        checkpoint: File of a pre-training run, or an imported one.
        out: The new folder; with another --to the name of the new file, or
            a folder for it.
        to: What is written: a folder, or a file for this library.
        encoder: The trained encoder or its moving average.
        config: Of the run; default: what the checkpoint tells about itself.
        num_heads: Of a ViT, where no config tells it.
        license: Of the weights, as the Hub calls it (apache-2.0); default:
            what the checkpoint says.
        onnx: Also write model.onnx into the folder, checked against torch.
        overwrite: Replace an earlier export in the folder.

    Returns:
        Where it is, and how it is loaded there.

    Raises:
        FileNotFoundError: If checkpoint or config do not exist.
        CheckpointError: If the checkpoint cannot be read, or is incomplete.
        ImportError: If a library for ONNX or safetensors is missing.
        ValueError: If the library has no such backbone, or the folder holds
            something else.

    Example:
        mmmoco export
        work_dirs/mocov2_r50_8xb32/epoch_200.pth mocov2_r50
        --license apache-2.0
    """
    if to != 'folder':
        options = dict(license=license != 'unknown', onnx=onnx)
        for name, given in (options | dict(overwrite=overwrite)).items():
            if given:
                raise UsageError(f'--{name} is for --to folder, not {to}.')
    from . import export_backbone as files

    # What costs nothing is checked first.
    if to == 'folder':
        from . import model_folder as folders

        place = folders.check_place(out, license, overwrite)
        if onnx:
            from .onnx_file import require

            require()
        source = files.read_source(checkpoint, encoder, config, num_heads)
        return folders.write(source, place, license, onnx)
    stem = files.stem_of(out, checkpoint, to)
    source = files.read_source(checkpoint, encoder, config, num_heads)
    return files.write(source, stem, to)


@tidy
def import_checkpoint(
    source: str,
    out: Annotated[str, {'type': ending('.pth', '.safetensors')}],
    *,
    from_: Annotated[str | None, {'metavar': 'LAYOUT'}] = None,
    config: str | Config | None = None,
    img_size: int | None = None,
    num_heads: int | None = None,
    drop: Annotated[Sequence[str], {'metavar': 'PATTERN'}] = (),
) -> Import:
    """Turn the checkpoint of another library into ours, if it is whole.

    With key encoder, queue and heads where it has them. The state of its
    optimizer is not carried over. It is read without running code in it.

    Args:
        source: File of another library.
        out: New file, .pth or .safetensors.
        from_: Do not tell by the keys: mmmoco, moco, mocov3,
            mmpretrain-moco, mmpretrain-mocov3, mmselfsup-0.x, openmmlab,
            mmpretrain-vit, mmseg-vit, seco, encoder-proj, encoder-proj-bn,
            lightly, lightly-benchmark, solo-learn-mocov2plus,
            solo-learn-mocov3, resnet, torchvision-vit, timm-vit, mae, dino,
            dinov2, dinov2-registers, hf-vit, dinov3, dinov3-sat, convnext,
            dinov3-convnext, detectron2.
        config: That the weights must fit; default: what they tell.
        img_size: Interpolate the position embeddings of a ViT to images of
            this side; default: the config's, or as in the file.
        num_heads: Of a ViT, where no config tells it.
        drop: Leave these keys of the file behind (head.*).

    Returns:
        What was carried over and what was not.

    Raises:
        FileNotFoundError: If source or config do not exist.
        CheckpointError: If the file needs code, is damaged or incomplete.
        ValueError: If its layout is unknown, ambiguous or does not fit.

    Example:
        mmmoco import moco_v2_800ep_pretrain.pth.tar
        mocov2_r50.pth && mmmoco train mocov2_r50_8xb32
        --load-from mocov2_r50.pth
    """
    ending('.pth', '.safetensors')(out)
    from mmmoco.apis.config.files import load_config

    from .import_checkpoint import read_foreign, write

    cfg = load_config(config) if config else None
    return write(
        read_foreign(source, cfg, from_, img_size, num_heads, drop), out
    )


@tidy
def convert_config(
    config: str, out: Annotated[str, {'type': ending('.py')}]
) -> Converted:
    """Turn a MoCo or DenseCL config of mmpretrain or mmselfsup 1.x into ours.

    A config is Python code and is executed: use only those that you trust.

    Args:
        config: Path, or package::path.
        out: New config, .py. What was not converted stands in its head.

    Returns:
        What became of every field.

    Raises:
        FileNotFoundError: If the config does not exist.
        ValueError: If it is of another method or an older layout, or if the
            result would not build.

    Example:
        mmmoco convert-config
        mmpretrain::mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k.py
        my_mocov2.py
    """
    ending('.py')(out)
    from mmmoco.apis.config.files import read_config

    from .convert_config import convert, write

    return write(convert(read_config(config)), config, out)
