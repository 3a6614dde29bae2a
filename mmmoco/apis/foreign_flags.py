"""What the flags of other tools are called here.

Those of the authors' MoCo, of DINO and MAE, of timm, and of lightly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Meaning(NamedTuple):
    """What a foreign flag is called here.

    Attributes:
        theirs: The flag, and its other names.
        flag: Our option, where a command has it.
        setting: Key of a config, or ``KEY=VALUE``, where a command has
            ``--cfg-options``.
        remark: What else to know; alone, if there is neither.
    """

    theirs: str
    flag: str = ''
    setting: str = ''
    remark: str = ''


_PROCESSES = 'tools/dist_train.sh and torchrun start one process a GPU'
# fmt: off
MEANINGS = [
    Meaning(
        '-a --arch --model --backbone --embed-model --encoder', '--backbone',
        'model.backbone.depth=18', 'or take another config: mmmoco configs',
    ),
    Meaning(
        '-b --batch-size --batch-size-per-gpu --batch', '--batch-size',
        'train_dataloader.batch_size', 'per GPU',
    ),
    Meaning(
        '--lr --learning-rate --base-lr --blr', '--lr',
        'optim_wrapper.optimizer.lr',
    ),
    Meaning(
        '--epochs --max-epochs --num-epochs', '--epochs',
        'train_cfg.max_epochs',
        'with --schedule fit; a config that counts iterations has '
        'train_cfg.max_iters, or --max-iters N',
    ),
    Meaning(
        '--steps --max-steps --iters', '--max-iters', 'train_cfg.max_iters',
    ),
    Meaning(
        '--wd --weight-decay', '--weight-decay',
        'optim_wrapper.optimizer.weight_decay',
    ),
    Meaning(
        '--momentum', '', 'optim_wrapper.optimizer.momentum',
        "of SGD; the key encoder's is model.m",
    ),
    Meaning('--moco-m --momentum-teacher --ema', '--m', 'model.m'),
    Meaning('--moco-m-cos', '', 'model.m_schedule=cosine'),
    Meaning(
        '--moco-k --queue-size --queue-len --queue --memory-bank-size',
        '--queue', 'model.dictionary.size',
    ),
    Meaning('--moco-t --temperature', '', 'model.loss.temperature'),
    Meaning('--moco-dim --out-dim', '', 'model.neck.out_channels'),
    Meaning('--moco-mlp-dim', '', 'model.neck.hid_channels'),
    Meaning(
        '--mlp --aug-plus --cos', '--method', '',
        'that is MoCo v2: take a config mocov2_*',
    ),
    Meaning('--stop-grad-conv1', '', 'model.backbone.stop_grad_conv1=True'),
    Meaning('--optimizer --opt', '', 'optim_wrapper.optimizer.type'),
    Meaning(
        '-j --workers --num-workers', '--workers',
        'train_dataloader.num_workers',
    ),
    Meaning(
        '-p --print-freq --log-interval', '', 'default_hooks.logger.interval',
    ),
    Meaning(
        '--saveckp-freq --save-freq', '', 'default_hooks.checkpoint.interval',
    ),
    Meaning(
        '--data-path --data-dir --data-root --input-dir --dataset --data',
        '--data', 'train_dataloader.dataset.data_root',
    ),
    Meaning('-o --out --out-dir --output --output-dir', '--work-dir'),
    Meaning('--pretrained --weights', '--load-from'),
    Meaning(
        '--checkpoint --ckpt', '', '', 'CHECKPOINT is given without a flag',
    ),
    Meaning('--start-epoch --resume-interrupted', '--resume'),
    Meaning('--precision --use-fp16 --fp16 --half', '--amp'),
    Meaning(
        '--img-size --image-size --input-size --size --resolution --crop '
        '--crop-size --global-crop --local-crop', '--image-size', 'view_size',
    ),
    Meaning('--num-neighbors --nb-knn -k', '--k'),
    Meaning(
        '--world-size --rank --dist-url --dist-backend --gpu --gpus --ngpus '
        '--devices --num-nodes --multiprocessing-distributed', '', '',
        _PROCESSES,
    ),
    Meaning(
        '--accelerator --device', '', '',
        'a GPU is used if there is one; CUDA_VISIBLE_DEVICES chooses',
    ),
]
# fmt: on
BY_FLAG = {flag: each for each in MEANINGS for flag in each.theirs.split()}


def meaning_of(name: str) -> Meaning | None:
    """Return what a name, such as ``'batch_size'``, is called here."""
    return BY_FLAG.get(f'--{name.lower().replace("_", "-")}')


def translated(
    flag: str, value: str | None, known: Iterable[str], settings: bool
) -> str | None:
    """Return what to give instead of a flag of another tool.

    Args:
        flag: As it was given.
        value: Behind it.
        known: Options of the command.
        settings: Whether the command takes settings of a training's config.

    Returns:
        None if nothing here corresponds to it.
    """
    meaning = BY_FLAG.get(flag.replace('_', '-'))
    if meaning is None:
        return None
    remark = f' ({meaning.remark})' if meaning.remark else ''
    if meaning.flag in known:
        return f'did you mean {meaning.flag}?'
    if meaning.setting and settings:
        setting = meaning.setting
        if '=' not in setting:
            setting += f'={value or "…"}'
        return f'here it is --cfg-options {setting}{remark}'
    return meaning.remark or None
