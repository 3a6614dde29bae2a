"""Small checkpoints in the layouts of other libraries.

Torchvision and timm build the networks; where a layout is that of a research
repository, the names around them are written out here as facts.
"""

import copy

import torch
import torchvision
from torch import nn
from torch.nn.functional import normalize

from mmmoco.models.backbones.mocov3_vit import sincos_positions

from ..conftest import optional

K = 32


def settle(module, seed=0):
    """Give every parameter and statistic a value of its own."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                value.fill_(3)
            elif name.endswith('running_var'):
                value.uniform_(0.5, 1.5, generator=g)
            elif value.dim() < 2:
                value.normal_(
                    1.0 if 'weight' in name else 0.0, 0.1, generator=g
                )
            else:
                fan = value[0].numel()
                value.normal_(0.0, fan**-0.5, generator=g)
    return module


def resnet(depth=18, **kwargs):
    return settle(getattr(torchvision.models, f'resnet{depth}')(**kwargs))


def vit(fixed=False, width=192, depth=2, heads=3, size=32, patch=8, **kwargs):
    net = optional('timm').models.VisionTransformer(
        img_size=size,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=kwargs.pop('num_classes', 0),
        **kwargs,
    )
    settle(net, 1)
    if fixed:
        with torch.no_grad():
            net.pos_embed.zero_()
            side = size // patch
            net.pos_embed[0, 1:] = sincos_positions(side, side, width)
    return net


def two_linear(width, out=128, hidden=None):
    hidden = hidden or width
    return settle(
        nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out)
        ),
        2,
    )


def two_convs(width, out=128):
    return settle(
        nn.Sequential(
            nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, out, 1)
        ),
        5,
    )


def with_batch_norm(widths, last_bn=True):
    layers = []
    for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
        layers.append(nn.Linear(a, b, bias=False))
        if i < len(widths) - 2:
            layers += [nn.BatchNorm1d(b), nn.ReLU()]
        elif last_bn:
            layers.append(nn.BatchNorm1d(b, affine=False))
    return settle(nn.Sequential(*layers), 3)


def another(module):
    """A key encoder: the same network, other values."""
    return settle(copy.deepcopy(module), 9)


def put(prefix, module):
    return {f'{prefix}{k}': v for k, v in module.state_dict().items()}


def queue(out=128, shape=None):
    g = torch.Generator().manual_seed(4)
    return normalize(torch.randn(shape or (out, K), generator=g), dim=0)


def moco(version=2, prefix='module.'):
    q = resnet()
    width = q.fc.in_features
    q.fc = settle(nn.Linear(width, 128)) if version == 1 else two_linear(width)
    k = another(q)
    state = {
        f'{prefix}queue': queue(),
        f'{prefix}queue_ptr': torch.tensor([8]),
        **put(f'{prefix}encoder_q.', q),
        **put(f'{prefix}encoder_k.', k),
    }
    return {'epoch': 200, 'arch': 'resnet18', 'state_dict': state}, q, k


def mocov3(kind='resnet', stem=False):
    if kind == 'resnet':
        q = resnet()
        q.fc = with_batch_norm([512, 64, 32])
        predictor = with_batch_norm([32, 64, 32], last_bn=False)
    else:
        q = vit(fixed=True, **(dict(size=64, patch=16) if stem else {}))
        if stem:
            widths = [3, 24, 48, 96, 192]
            layers = []
            for a, b in zip(widths, widths[1:], strict=False):
                layers += [
                    nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(b),
                    nn.ReLU(),
                ]
            q.patch_embed.proj = settle(
                nn.Sequential(*layers, nn.Conv2d(192, 192, 1))
            )
        q.head = with_batch_norm([192, 64, 64, 32])
        predictor = with_batch_norm([32, 64, 32])
    k = another(q)
    if kind != 'resnet':
        k.load_state_dict({**k.state_dict(), 'pos_embed': q.pos_embed})
    state = {
        **put('module.base_encoder.', q),
        **put('module.momentum_encoder.', k),
        **put('module.predictor.', predictor),
    }
    checkpoint = {'epoch': 300, 'arch': kind, 'state_dict': state}
    return checkpoint, (q, predictor), k


def children(net):
    return nn.Sequential(*list(net.children())[:-1])


def bare(net):
    net.fc = nn.Identity()
    return net


def seed_pipeline(bn=False, full=False):
    q = vit()
    p = with_batch_norm([192, 64, 32]) if bn else two_linear(192, 32)
    checkpoint = {
        'encoder_q': q.state_dict(),
        'proj_q': p.state_dict(),
        'optimizer': {'state': {}, 'param_groups': [{'lr': 1e-3}]},
        'epoch': 3,
        'global_step': 99,
    }
    if full:
        checkpoint['encoder_k'] = another(q).state_dict()
        checkpoint['proj_k'] = another(p).state_dict()
        checkpoint['queue'] = queue(32)
        checkpoint['queue_ptr'] = torch.tensor([0])
    return checkpoint


def lightly(key='backbone_momentum', head='projection_head_momentum'):
    q, p = children(resnet()), nn.ModuleDict({'layers': two_linear(512)})
    return {
        **put('backbone.', q),
        **put('projection_head.', p),
        **put(f'{key}.', another(q)),
        **put(f'{head}.', another(p)),
    }


def lightly_benchmark():
    q, p = bare(resnet()), nn.ModuleDict({'layers': two_linear(512)})
    return {
        'state_dict': {
            **put('query_backbone.', q),
            **put('query_projection_head.', p),
            **put('backbone.', another(q)),
            **put('projection_head.', another(p)),
            # Kept by older versions, one key a row.
            'criterion.memory_bank.bank': queue(shape=(K, 128)),
            'criterion.memory_bank.bank_ptr': torch.tensor([4]),
            **put('online_classifier.', nn.Linear(512, 10)),
        }
    }


def solo_learn(v3=False):
    q = bare(resnet())
    state = {**put('backbone.', q), **put('momentum_backbone.', another(q))}
    state |= put('classifier.', nn.Linear(512, 10))
    if v3:
        p = with_batch_norm([512, 64, 32])
        state |= put('predictor.', with_batch_norm([32, 64, 32], False))
    else:
        p = two_linear(512)
        state['queue'] = queue(shape=(2, 128, K))
        state['queue_ptr'] = torch.tensor([4])
    state |= {**put('projector.', p), **put('momentum_projector.', another(p))}
    return {'state_dict': state, 'epoch': 9}


def dino():
    student, teacher = vit(), another(vit())
    head = nn.ModuleDict({'mlp': two_linear(192)})
    return {
        'student': {
            **put('module.backbone.', student),
            **put('module.head.', head),
        },
        'teacher': {**put('backbone.', teacher), **put('head.', head)},
        'optimizer': {'state': {}, 'param_groups': []},
        'epoch': 100,
        'dino_loss': {'center': torch.zeros(1, 128)},
    }


def dino_resnet(wrapped=True):
    """With BatchNorm the teacher too is wrapped for several processes."""
    student, teacher = bare(resnet()), another(bare(resnet()))
    head = nn.ModuleDict({'mlp': two_linear(512)})
    front = 'module.' if wrapped else ''
    return {
        'student': {
            **put('module.backbone.', student),
            **put('module.head.', head),
        },
        'teacher': {
            **put(f'{front}backbone.', teacher),
            **put(f'{front}head.', head),
        },
        'optimizer': {'state': {}, 'param_groups': []},
        'epoch': 100,
        'fp16_scaler': None,
        'dino_loss': {'center': torch.zeros(1, 128)},
    }


def seco(spaces=3):
    q = children(resnet())
    heads = nn.ModuleList(settle(two_linear(512), i) for i in range(spaces))
    return {
        'epoch': 199,
        'state_dict': {
            'queue': queue(shape=(spaces, 128, K)),
            'queue_ptr': torch.arange(8, 8 + spaces)[:, None],
            **put('encoder_q.', q),
            **put('encoder_k.', another(q)),
            **put('heads_q.', heads),
            **put('heads_k.', another(heads)),
        },
        'hyper_parameters': {'emb_spaces': spaces, 'base_encoder': 'resnet18'},
    }


def compiled(checkpoint, inside=False):
    """What torch.compile writes, of the whole model or of its parts."""

    def renamed(name):
        top, dot, rest = name.partition('.')
        if inside and dot:
            return f'{top}._orig_mod.{rest}'
        return f'_orig_mod.{name}'

    state = checkpoint['state_dict']
    return {
        **checkpoint,
        'state_dict': {renamed(k): v for k, v in state.items()},
    }


def dinov2():
    net = vit(init_values=1e-5, patch=8)
    return {**net.state_dict(), 'mask_token': torch.zeros(1, 192)}


def mae():
    state = vit().state_dict()
    decoder = {
        'mask_token': torch.zeros(1, 1, 64),
        'decoder_pos_embed': torch.zeros(1, 17, 64),
        **put('decoder_embed.', nn.Linear(192, 64)),
        **put('decoder_blocks.0.norm1.', nn.LayerNorm(64)),
        **put('decoder_pred.', nn.Linear(64, 192)),
    }
    return {'model': {**state, **decoder}}


def torchvision_vit():
    return settle(
        torchvision.models.VisionTransformer(
            image_size=32,
            patch_size=8,
            num_layers=2,
            num_heads=3,
            hidden_dim=192,
            mlp_dim=768,
        )
    )


def mmselfsup_0x():
    q = nn.Sequential(bare(resnet()), nn.ModuleDict({'mlp': two_linear(512)}))
    return {
        'state_dict': {
            'queue': queue(),
            'queue_ptr': torch.tensor([0]),
            **put('encoder_q.', q),
            **put('backbone.', q[0]),
            **put('neck.', q[1]),
            **put('encoder_k.', another(q)),
        }
    }


def densecl():
    """As its authors' code saves a training."""
    q = nn.Sequential(
        bare(resnet()),
        nn.ModuleDict({'mlp': two_linear(512), 'mlp2': two_convs(512)}),
    )
    state = {
        **put('encoder_q.', q),
        **put('encoder_k.', another(q)),
        **put('backbone.', q[0]),
    }
    for name in ('queue', 'queue2'):
        state |= {name: queue(), f'{name}_ptr': torch.tensor([8])}
    return {'meta': {}, 'state_dict': state, 'optimizer': {}}


#: Layout -> (checkpoint, name of the format, entries by module).
ALL = {
    'moco v1': (
        lambda: moco(1)[0],
        'moco',
        dict(backbone=120, neck=2, key_encoder=122, dictionary=2),
    ),
    'moco v2': (
        lambda: moco(2)[0],
        'moco',
        dict(backbone=120, neck=4, key_encoder=124, dictionary=2),
    ),
    'mocov3 resnet': (
        lambda: mocov3()[0],
        'mocov3',
        dict(backbone=120, neck=10, predictor=7, key_encoder=130),
    ),
    'mocov3 vit': (
        lambda: mocov3('vit')[0],
        'mocov3',
        dict(backbone=30, neck=16, predictor=10, key_encoder=46),
    ),
    'mocov3 conv stem': (
        lambda: mocov3('vit', stem=True)[0],
        'mocov3',
        dict(backbone=54, neck=16, predictor=10, key_encoder=70),
    ),
    'mmselfsup 0.x': (
        mmselfsup_0x,
        'mmselfsup-0.x',
        dict(backbone=120, neck=4, key_encoder=124, dictionary=2),
    ),
    'densecl': (
        densecl,
        'mmselfsup-0.x',
        dict(
            backbone=120,
            neck=8,
            key_encoder=128,
            dictionary=2,
            dense_dictionary=2,
        ),
    ),
    'seed': (
        seed_pipeline,
        'encoder-proj',
        dict(backbone=30, neck=4),
    ),
    'seed, with BatchNorm and keys': (
        lambda: seed_pipeline(bn=True, full=True),
        'encoder-proj-bn',
        dict(backbone=30, neck=10, key_encoder=40, dictionary=2),
    ),
    'lightly': (
        lightly,
        'lightly',
        dict(backbone=120, neck=4, key_encoder=124),
    ),
    'lightly, older': (
        lambda: lightly('momentum_backbone', 'momentum_projection_head'),
        'lightly',
        dict(backbone=120, neck=4, key_encoder=124),
    ),
    'lightly benchmark': (
        lightly_benchmark,
        'lightly-benchmark',
        dict(backbone=120, neck=4, key_encoder=124, dictionary=2),
    ),
    'solo-learn v2+': (
        solo_learn,
        'solo-learn-mocov2plus',
        dict(backbone=120, neck=4, key_encoder=124, dictionary=2),
    ),
    'solo-learn v3': (
        lambda: solo_learn(v3=True),
        'solo-learn-mocov3',
        dict(backbone=120, neck=10, predictor=7, key_encoder=130),
    ),
    'torchvision resnet': (
        lambda: resnet().state_dict(),
        'resnet',
        dict(backbone=120),
    ),
    'timm resnet': (
        lambda: optional('timm').create_model('resnet18').state_dict(),
        'resnet',
        dict(backbone=120),
    ),
    'torchvision vit': (
        lambda: torchvision_vit().state_dict(),
        'torchvision-vit',
        dict(backbone=30),
    ),
    'timm vit': (
        lambda: vit(num_classes=10).state_dict(),
        'timm-vit',
        dict(backbone=30),
    ),
    'dino': (dino, 'dino', dict(backbone=30)),
    'dino resnet': (dino_resnet, 'dino', dict(backbone=120)),
    'dino resnet, one process': (
        lambda: dino_resnet(wrapped=False),
        'dino',
        dict(backbone=120),
    ),
    'seco': (
        seco,
        'seco',
        dict(backbone=120, neck=4, key_encoder=124, dictionary=2),
    ),
    'seco, one space': (
        lambda: seco(1),
        'seco',
        dict(backbone=120, neck=4, key_encoder=124, dictionary=2),
    ),
    'moco v2, compiled': (
        lambda: compiled(moco(2)[0]),
        'moco',
        dict(backbone=120, neck=4, key_encoder=124, dictionary=2),
    ),
    'mocov3 vit, compiled parts': (
        lambda: compiled(mocov3('vit')[0], inside=True),
        'mocov3',
        dict(backbone=30, neck=16, predictor=10, key_encoder=46),
    ),
    'dinov2': (dinov2, 'dinov2', dict(backbone=34)),
    'mae': (mae, 'mae', dict(backbone=30)),
}
