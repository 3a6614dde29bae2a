"""Four tiny trainings, and the checkpoints that an earlier version made.

The files beside this one were written at commit 3bd3eb5, before the contract
of a model stood in one class: ``python make.py FOLDER``, where FOLDER then
holds ``{kind}_1.pth``, after the first of two epochs, ``moco_2.pth``, after
the second, and ``{kind}_features.pth``, for :func:`images`.
"""

import sys
import tempfile
from pathlib import Path

import torch

KINDS = ('moco', 'mocov3', 'mmc', 'distillation')
PROJECTION = dict(
    type='mmpretrain.NonLinearNeck',
    in_channels=8,
    hid_channels=8,
    out_channels=8,
    with_avg_pool=False,
)


def vit(width, patch_size, img_size, **more):
    arch = dict(
        embed_dims=width,
        num_layers=1,
        num_heads=2,
        feedforward_channels=width,
    )
    return dict(
        arch=arch,
        patch_size=patch_size,
        img_size=img_size,
        in_channels=1,
        **more,
    )


def config(kind, work_dir):
    """Return the config of two epochs of two iterations."""
    from mmmoco.apis import load_config

    demo = 'mmc' if kind == 'mmc' else 'mocov2'
    cfg = load_config(f'demo/{demo}_digits')
    cfg.work_dir = str(work_dir)
    cfg.custom_hooks = [h for h in cfg.custom_hooks if h.type != 'KNNHook']
    cfg.pop('knn')
    cfg.train_cfg.max_epochs = 2
    cfg.schedule = 'fit'
    cfg.default_hooks.checkpoint.interval = 1
    loader, model = cfg.train_dataloader, cfg.model
    loader.batch_size = 8
    if kind == 'mmc':
        loader.dataset.scenes_per_digit = 1
        loader.dataset.num_scenes = 16
        model.backbone.update(vit(8, 8, 48))
        model.heads.rec.in_channels = 8
        for head in (model.heads.pat, model.heads.cls):
            head.projector.update(PROJECTION)
        return cfg
    loader.dataset.num_scenes = 16
    model.backbone.update(channels=(4, 8), strides=(1, 2), out_indices=(1,))
    model.neck.update(in_channels=8, hid_channels=8, out_channels=8)
    model.dictionary.update(size=20, feat_dim=8)
    if kind == 'mocov3':
        model.update(type='MoCoV3', m=0.9, m_schedule='cosine')
        model.dictionary = dict(type='InBatch')
        model.predictor = dict(PROJECTION, norm_cfg=dict(type='BN1d'))
        views = model.data_preprocessor.get('views')
        model.data_preprocessor.views = dict(
            view_1=views['view_q'], view_2=views['view_k']
        )
    if kind == 'distillation':
        student = dict(type='MoCoV3ViT', stop_grad_conv1=False)
        cfg.model = dict(
            type='Distillation',
            backbone=student | vit(8, 8, 16),
            teacher=dict(type='mmpretrain.VisionTransformer') | vit(12, 7, 14),
            data_preprocessor=model.data_preprocessor,
        )
        cfg.custom_hooks = [
            h for h in cfg.custom_hooks if 'Update' not in h.type
        ]
    return cfg


def images(kind):
    """Return a batch as the backbone of this kind takes it."""
    side = 48 if kind == 'mmc' else 16
    draws = torch.Generator().manual_seed(0)
    return torch.randn(4, 1, side, side, generator=draws)


def main(folder):
    from mmmoco.apis.runtime import build_runner  # Where it stood then.

    import mmmoco

    for kind in KINDS:
        with tempfile.TemporaryDirectory() as work_dir:
            cfg = config(kind, work_dir)
            runner = build_runner(cfg)
            runner.train()
            for epoch in (1, 2) if kind == 'moco' else (1,):
                source = Path(work_dir) / f'epoch_{epoch}.pth'
                (folder / f'{kind}_{epoch}.pth').write_bytes(
                    source.read_bytes()
                )
            model = mmmoco.get_model(cfg, str(folder / f'{kind}_1.pth'))
        with torch.no_grad():
            features = {
                stage: model.extract_feat(images(kind), stage)
                for stage in ('backbone', 'neck')
            }
        torch.save(features, folder / f'{kind}_features.pth')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
