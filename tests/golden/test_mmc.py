"""MMC against a plain transcription of its three losses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmoco.registry import MODELS

from ..comparison import check
from . import ours, plain

TAU, DIM, PATCH, SIDE, OUT, BATCH, STEPS = 0.2, 16, 4, 8, 8, 8, 3


def projector(**options):
    return dict(
        type='mmpretrain.NonLinearNeck',
        in_channels=DIM,
        hid_channels=12,
        out_channels=OUT,
        with_avg_pool=False,
        **options,
    )


HEADS = dict(
    rec=dict(type='ReconstructionHead', in_channels=DIM, patch_size=PATCH),
    pat=dict(
        type='PatchDistillationHead',
        patch_size=PATCH,
        projector=projector(norm_cfg=dict(type='LN'), with_last_bn=False),
    ),
    cls=dict(
        type='CLSContrastHead',
        projector=projector(
            norm_cfg=dict(type='BN1d'), with_last_bn_affine=False
        ),
    ),
)


def build(**options):
    torch.manual_seed(0)
    cfg = dict(
        type='MMC',
        backbone=dict(
            type='MoCoV3ViT',
            arch=dict(
                embed_dims=DIM,
                num_layers=2,
                num_heads=4,
                feedforward_channels=32,
            ),
            img_size=SIDE,
            patch_size=PATCH,
        ),
        heads=copy.deepcopy(HEADS),
        m=0.9,
        data_preprocessor=dict(
            type='MaskedViewAugmentor',
            mean=(128,) * 3,
            std=(64,) * 3,
            corruption=dict(type='BlockCorruption'),
        ),
    )
    model = MODELS.build(cfg | options)
    model.init_weights()
    # See test_mocov3: N(0, 1e-6) would multiply the rounding errors.
    nn.init.normal_(model.backbone.cls_token, std=0.5)
    model.reset_key_encoder()
    model.train()
    for hook in model.needs:
        model.announce(hook)
    return model


class AllTokens(plain.Transformer):
    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        x = x + interpolated(self.positions, x.shape[1])
        return self.norm(self.blocks(x))


def interpolated(positions, tokens):
    """Positions for a smaller grid, as everyone does for local crops."""
    if positions.shape[1] == tokens:
        return positions
    side = int((tokens - 1) ** 0.5)
    old = int((positions.shape[1] - 1) ** 0.5)
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (side, side), mode='bicubic')
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], 1)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(DIM, DIM) for _ in range(3)])
        # Holds kernel (DIM x 3 x PATCH x PATCH) and bias; written out below.
        self.up = nn.ConvTranspose2d(DIM, 3, PATCH, PATCH)

    def forward(self, tokens):
        for layer in self.layers:
            tokens = F.gelu(layer(tokens))
        image = torch.zeros(len(tokens), 3, SIDE, SIDE)
        for i in range(SIDE // PATCH):
            for j in range(SIDE // PATCH):
                token = tokens[:, i * (SIDE // PATCH) + j]
                block = torch.einsum('nd,dcab->ncab', token, self.up.weight)
                image[
                    :,
                    :,
                    i * PATCH : (i + 1) * PATCH,
                    j * PATCH : (j + 1) * PATCH,
                ] = block + self.up.bias[:, None, None]
        return image


def patch_mlp():
    return nn.Sequential(
        nn.Linear(DIM, 12, bias=False),
        nn.LayerNorm(12),
        nn.ReLU(),
        nn.Linear(12, OUT, bias=False),
    )


class Paper:
    """Losses, gradient step and teacher, written out."""

    def __init__(self, model, weights=(1.0, 1.0, 1.0)):
        self.body = plain.take_weights(
            AllTokens(dim=DIM, patch=PATCH, side=SIDE),
            ours.weights(model.backbone),
        )
        self.weights = weights
        parts = dict(
            rec=Decoder(),
            pat=patch_mlp(),
            cls=plain.v3_mlp(DIM, 12, OUT, 2, True),
        )
        self.heads = {
            name: plain.take_weights(
                parts[name], ours.weights(model.heads[name])
            )
            for name in model.heads
        }
        self.teacher = copy.deepcopy(
            [self.body, *(h for n, h in self.heads.items() if n != 'rec')]
        )
        names = [n for n in self.heads if n != 'rec']
        self.teacher_heads = dict(zip(names, self.teacher[1:], strict=True))
        self.learnt = [
            p
            for module in [self.body, *self.heads.values()]
            for p in module.parameters()
            if p.requires_grad
        ]
        self.sgd = plain.SGD(self.learnt, **ours.SGD | dict(lr=0.003))

    def move_teacher(self, m):
        students = [
            self.body,
            *(h for n, h in self.heads.items() if n != 'rec'),
        ]
        for own, student in zip(self.teacher, students, strict=True):
            for a, b in zip(
                own.parameters(), student.parameters(), strict=True
            ):
                a.data = m * a.data + (1 - m) * b.data

    def loss(self, inputs, local=()):
        views = ['view_1', 'view_2']
        student = [self.body(inputs[f'{v}_corrupted']) for v in views]
        with torch.no_grad():
            teacher = [self.teacher[0](inputs[v]) for v in views]
        total = 0.0
        w_rec, w_pat, w_cls = self.weights
        if w_rec:
            values = []
            for view, tokens in zip(views, student, strict=True):
                pixels = self.heads['rec'](tokens[:, 1:])
                for n in range(BATCH):
                    where = inputs[f'{view}_mask'][n, 0]
                    error = (pixels[n] - inputs[view][n]).abs()[:, where]
                    values.append(error.mean())
            total = total + w_rec * sum(values) / len(values)
        if w_pat:
            values = []
            for view, s, t in zip(views, student, teacher, strict=True):
                s = self.heads['pat'](s[:, 1:])
                with torch.no_grad():
                    t = self.teacher_heads['pat'](t[:, 1:])
                for n in range(BATCH):
                    values.append(
                        self.patch_term(
                            plain.unit(s[n]),
                            plain.unit(t[n]),
                            inputs[f'{view}_mask'][n, 0],
                        )
                    )
            total = total + w_pat * sum(values) / len(values)
        if w_cls:
            cls = self.heads['cls']
            queries = [plain.unit(cls(s[:, 0])) for s in student]
            queries += [
                plain.unit(cls(self.body(inputs[name])[:, 0]))
                for name in local
            ]
            with torch.no_grad():
                keys = [
                    plain.unit(self.teacher_heads['cls'](t[:, 0]))
                    for t in teacher
                ]
            terms = [
                2 * TAU * plain.in_batch(q, k, TAU)
                for i, q in enumerate(queries)
                for j, k in enumerate(keys)
                if i != j
            ]
            total = total + w_cls * 2 * sum(terms) / len(terms)
        return total

    def patch_term(self, s, t, mask):
        terms = []
        for p in range(len(s)):
            i, j = divmod(p, SIDE // PATCH)
            block = mask[
                i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH
            ]
            if block.float().mean() < 0.5:
                continue
            log_p = (t @ s[p] / TAU).log_softmax(0)
            terms.append(-2 * TAU * log_p[p])
        return sum(terms) / max(len(terms), 1)


def data(step, local=0):
    draws = torch.Generator().manual_seed(step)

    def images(side):
        return torch.randint(
            0, 256, (BATCH, 3, side, side), generator=draws, dtype=torch.uint8
        )

    inputs = {f'view_{i}': images(SIDE) for i in (1, 2)}
    inputs |= {f'local_{i + 1}': images(PATCH) for i in range(local)}
    return {'inputs': inputs, 'ids': torch.arange(BATCH)}


WEIGHTS = [(1.0, 1.0, 1.0), (0.0, 2.0, 1.0), (1.0, 0.0, 0.5), (3.0, 1.0, 0.0)]


def compare_mmc(weights, local):
    """Loss, gradients, student and teacher, step after step."""
    seen = []
    names = ('rec_weight', 'pat_weight', 'cls_weight')
    model = build(**dict(zip(names, weights, strict=True)))
    paper = Paper(model, weights)
    assert ('rec' in model.heads) == bool(weights[0])
    wrapper, grads = ours.optim_wrapper(model, lr=0.003), []
    student = [model.backbone, *model.heads.values()]
    wrapper.optimizer.register_step_pre_hook(
        lambda *_: grads.append(
            [p.grad.clone() for p in model.parameters() if p.requires_grad]
        )
    )
    for step in range(STEPS):
        batch = data(step, local)
        if step:
            paper.move_teacher(plain.cosine_m(0.9, step, STEPS))
        seen.append(
            ours.close(
                model.teacher.parameters(),
                (p for module in paper.teacher for p in module.parameters()),
            )
        )
        model.set_address(seed=0, step=step, rank=0)
        inputs = model.data_preprocessor(batch, True)['inputs']
        assert len(inputs) == 6 + local
        loss = paper.loss(inputs, [f'local_{i + 1}' for i in range(local)])
        expected = torch.autograd.grad(loss, paper.learnt)
        log = model.train_step(batch, wrapper)
        seen.append(ours.close([log['loss']], [loss.detach()]))
        seen.append(ours.close(grads.pop(), expected, ours.GRADIENTS))
        paper.sgd.step(expected)
        seen.append(
            ours.close(
                ours.parameters(*student),
                (
                    p
                    for module in [paper.body, *paper.heads.values()]
                    for p in module.parameters()
                ),
            )
        )
        model.update_key_encoder(model.momentum_at((step + 1) / STEPS))
        model.commit_keys()
    return ours.comparison(
        f'MMC, weights {weights}, {local} local views',
        'its losses in plain loops',
        seen,
        f'{STEPS} steps',
    )


@pytest.mark.parametrize('weights', WEIGHTS)
@pytest.mark.parametrize('local', [0, 3])
def test_mmc(weights, local):
    check([compare_mmc(weights, local)])


def all_comparisons():
    for weights in WEIGHTS:
        yield compare_mmc(weights, 3)
