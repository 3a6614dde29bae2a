"""The detection configs: what they load, and that they train and test.

On embedded scenes of 96 pixels, in the layouts of COCO, VOC and Cityscapes.
"""

import json
import re
from types import SimpleNamespace

import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope

from mmmoco.apis import list_configs, load_config
from mmmoco.apis.config.initialization import initialize
from mmmoco.apis.data.digit_export import export_scenes
from mmmoco.apis.lookup import resolve_config
from mmmoco.apis.training import train
from mmmoco.apis.training.runner import build_runner
from mmmoco.datasets.digit_scenes import DigitScenes
from mmmoco.engine import checkpoint_io
from mmmoco.registry import MODELS

pytestmark = [pytest.mark.downstream, pytest.mark.slow]

PLACE = 'benchmarks/mmdetection'
NAMES = [n.removeprefix(f'{PLACE}/') for n in list_configs(f'^{PLACE}/')]
VIT = 'coco/mask-rcnn_vit-b_8xb8_100e'
VIT_S = 'coco/mask-rcnn_vit-s_8xb8_100e'
DIGITS = 'demo_digits/retinanet_1xb16_500i'
C4 = 'coco/mask-rcnn_r50-c4_8xb2_1x'
LONGER = [n for n in NAMES if n.startswith('coco/') and n.endswith('_2x')]
SOURCES = ('ours', 'supervised', 'random')


# ------------------------------------------------------------------- weights


def kind_of(name):
    return {VIT: 'vit', VIT_S: 'vit-s', DIGITS: 'plain'}.get(name, 'r50')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Return a function: file in the layout of our training checkpoints."""
    folder = tmp_path_factory.mktemp('weights')
    configs = {
        'vit': 'mocov3_vit-b_64xb64_300e',
        'vit-s': 'mocov3_vit-s_8xb128_300e',
        'plain': 'demo/mocov2_digits',
        'r50': 'mocov2_r50_8xb32',
    }

    def file(kind):
        path = folder / f'{kind}.pth'
        if not path.exists():
            import mmmoco.models  # noqa: F401

            torch.manual_seed(0)
            cfg = load_config(configs[kind]).model.backbone
            with DefaultScope.overwrite_default_scope('mmmoco'):
                backbone = MODELS.build(cfg)
            for key, value in backbone.state_dict().items():
                if 'running' in key:
                    value.uniform_(0.5, 2)
            state = {
                f'{place}.{key}': value
                for place in ('backbone', 'key_encoder.backbone')
                for key, value in backbone.state_dict().items()
            }
            torch.save({'meta': {'epoch': 1}, 'state_dict': state}, path)
        return str(path)

    return file


@pytest.fixture(scope='module')
def torchvision_file(tmp_path_factory):
    """In torch's cache, where ``torchvision://resnet50`` is looked for."""
    home = tmp_path_factory.mktemp('torch_home')
    (home / 'hub' / 'checkpoints').mkdir(parents=True)
    path = home / 'hub' / 'checkpoints' / 'resnet50-0676ba61.pth'
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet50().state_dict(), path)
    return path


def expected_of(source, kind, weights, torchvision_file):
    """The tensors that a backbone must hold, by its own names."""
    if source == 'supervised':
        state = torch.load(torchvision_file, weights_only=True)
        return {k: v for k, v in state.items() if not k.startswith('fc.')}
    state = torch.load(weights(kind), weights_only=True)['state_dict']
    return {
        key.removeprefix('backbone.'): value
        for key, value in state.items()
        if key.startswith('backbone.')
    }


def built(cfg):
    init_default_scope('mmdet')
    torch.manual_seed(2)
    with checkpoint_io.guarded:
        model = MODELS.build(cfg.model)
        model.init_weights()
    return model


def hooks_of(cfg):
    from mmmoco.registry import HOOKS

    kind = 'mmmoco.VerifyPretrainedHook'
    return [HOOKS.build(h) for h in cfg.custom_hooks if h.type == kind]


def verify(hook, model):
    runner = SimpleNamespace(model=model, _has_loaded=False, cfg={})
    hook.before_run(runner)
    hook.before_train(runner)


def holds(model, file):
    """Names of the file's tensors that the detector holds, bit by bit."""
    parts = [model.backbone]
    if getattr(model, 'with_shared_head', False):
        parts.append(model.roi_head.shared_head)
    own = {}
    for part in parts:
        own.update(part.state_dict())
    return {k for k, v in file.items() if k in own and torch.equal(own[k], v)}


# --------------------------------------------------------------------- tests


@pytest.mark.parametrize('name', LONGER)
def test_the_longer_schedule_is_of_the_same_model(name):
    longer = load_config(f'{PLACE}/{name}')
    usual = load_config(f'{PLACE}/{name.replace("2x", "1x")}')
    for part in ('model', 'custom_hooks', 'optim_wrapper', 'default_hooks'):
        assert longer[part] == usual[part], part


@pytest.mark.parametrize('name', [n for n in NAMES if n not in LONGER])
def test_it_loads_in_all_three_initialisations(
    name, weights, torchvision_file, monkeypatch, capsys
):
    monkeypatch.setenv('TORCH_HOME', str(torchvision_file.parents[2]))
    kind = kind_of(name)
    for source in SOURCES:
        cfg = load_config(f'{PLACE}/{name}')
        if source == 'supervised' and kind != 'r50':
            with pytest.raises(ValueError, match='--init FILE'):
                initialize(cfg, source)
            continue
        initialize(cfg, weights(kind) if source == 'ours' else source)
        capsys.readouterr()
        model = built(cfg)
        file = expected_of(
            'ours' if source == 'random' else source,
            kind,
            weights,
            torchvision_file,
        )
        equal = holds(model, file)
        if source == 'random':
            assert not hooks_of(cfg)
            assert 'load ' not in ''.join(capsys.readouterr())
            drawn = {k for k, v in file.items() if v.dim() == 4}
            assert drawn and not drawn & equal
            continue
        unused = {k for k in file if 'vit' in kind and k.startswith('ln1.')}
        assert equal == set(file) - unused
        (hook,) = hooks_of(cfg)
        verify(hook, model)
        log = ''.join(capsys.readouterr())
        assert 'backbone: all' in log
        assert ('shared_head: all' in log) == ('-c4_' in name)
        assert ('new: norm.weight' in log) == ('-c4_' in name)


@pytest.mark.parametrize('name', NAMES)
def test_it_keeps_the_rules_of_moco(name):
    """SyncBN that is trained, nothing frozen, RGB, stride in the 3×3."""
    cfg = load_config(f'{PLACE}/{name}')
    assert cfg.default_scope == 'mmdet'
    inputs = cfg.model.data_preprocessor
    if name != DIGITS:
        assert inputs.bgr_to_rgb
        assert inputs.mean == [123.675, 116.28, 103.53]
        assert inputs.std == [58.395, 57.12, 57.375]
    parts = [cfg.model.backbone]
    if '-c4_' in name:
        parts.append(cfg.model.roi_head.shared_head)
        assert parts[1].type == 'ResLayerExtraNorm'
    for part in parts:
        if kind_of(name) == 'r50':
            assert part.norm_cfg == dict(type='SyncBN', requires_grad=True)
            assert part.norm_eval is False
            assert part.style == 'pytorch'
            assert part.get('frozen_stages', -1) == -1
        assert part.init_cfg.prefix == 'backbone.'
    if '-fpn_' in name:
        heads = cfg.model.get('roi_head', {})
        heads = [h for h in map(heads.get, ('bbox_head', 'mask_head')) if h]
        for part in (cfg.model.neck, *heads):
            assert part.norm_cfg.type == 'SyncBN'


def test_mmdets_own_tools_read_them_too():
    """They have neither our way of finding bases nor ``--init``."""
    ours = {name: load_config(f'{PLACE}/{name}') for name in NAMES}
    for name, expected in ours.items():
        theirs = Config.fromfile(resolve_config(f'{PLACE}/{name}'))
        assert theirs.to_dict() == expected.to_dict(), name


#: lr at the batch that the name has, iterations, steps, warm-up.
SCHEDULES = {
    'voc0712/faster-rcnn_r50-c4_8xb2_24k': (
        0.02, 24_000, [18_000, 22_000], 100,
    ),
    'cityscapes/mask-rcnn_r50-fpn_8xb1_24k': (0.01, 24_000, [18_000], 1000),
    **dict.fromkeys(
        (VIT, VIT_S), (1e-4, 184_375, [163_889, 177_546], 250)
    ),
    DIGITS: (1e-3, 500, [350, 450], 50),
}  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_its_schedule_is_the_published_one(name):
    cfg = load_config(f'{PLACE}/{name}')
    rate = 0.01 if '/retinanet_r50' in name else 0.02
    one = (rate, 90_000, [60_000, 80_000], 1000)
    two = (rate, 180_000, [120_000, 160_000], 1000)
    lr, total, steps, warm_up = SCHEDULES.get(
        name, two if '_2x' in name else one
    )
    first, second = cfg.param_scheduler
    assert cfg.optim_wrapper.optimizer.lr == lr
    assert cfg.train_cfg.max_iters == total
    assert second.milestones == steps
    assert first.end == warm_up
    assert not first.by_epoch and not second.by_epoch
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)_', name).groups())
    assert cfg.train_dataloader.batch_size == batch
    if name != DIGITS:
        assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
    assert not cfg.log_processor.by_epoch


def test_the_rate_of_a_vit_falls_from_block_to_block():
    from mmengine.optim import build_optim_wrapper

    cfg = load_config(f'{PLACE}/{VIT}')
    initialize(cfg, 'random')
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): n for n, p in model.named_parameters()}
    rates = {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for p in group['params']
    }
    layers = 'backbone.layers'
    for name, power, decay in (
        (f'{layers}.11.ffn.layers.1.weight', 1, 0.1),
        (f'{layers}.1.ffn.layers.1.weight', 11, 0.1),
        (f'{layers}.10.ln1.weight', 2, 0),
        (f'{layers}.0.ln2.bias', 12, 0),
        ('backbone.patch_embed.projection.weight', 13, 0.1),
        ('backbone.pos_embed', 13, 0),
        ('rpn_head.rpn_cls.weight', 0, 0.1),
        ('neck.1.lateral_convs.0.bn.weight', 0, 0),
    ):
        expected = (1e-4 * 0.7**power, decay)
        assert rates[name] == pytest.approx(expected), name


# ------------------------------------------------------ one iteration of each


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """COCO, VOC and Cityscapes, twelve scenes to train and two to test."""
    root = tmp_path_factory.mktemp('data') / 'scenes'
    sizes = {'train': 12, 'val': 2}
    export_scenes(
        root,
        {
            split: DigitScenes(
                split=split,
                size=96,
                num_scenes=number,
                digits_per_image=(1, 5),
            )
            for split, number in sizes.items()
        },
    )
    (root / 'VOC2012').symlink_to(root / 'VOC2007')
    for split in sizes:
        coco = root / f'annotations/instances_{split}.json'
        content = json.loads(coco.read_text())
        for image in content['images']:
            image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
        for category in content['categories']:
            category['frequency'] = 'f'
        lvis = root / f'annotations/lvis_v0.5_{split}.json'
        lvis.write_text(json.dumps(content))
        for image in content['images']:
            stem = f'digits_{image["id"] - 1:06d}_000000_leftImg8bit.png'
            image['file_name'] = f'digits/{stem}'
        name = f'instancesonly_filtered_gtFine_{split}.json'
        (root / 'annotations' / name).write_text(json.dumps(content))
    return root


DIGIT_CLASSES = tuple('0123456789')
FILES = {
    'annotations/instances_train2017.json': 'annotations/instances_train.json',
    'annotations/instances_val2017.json': 'annotations/instances_val.json',
    'train2017/': 'train/',
    'val2017/': 'val/',
}
SIZES = {
    'Resize': dict(scale=(96, 96)),
    'RandomResize': dict(scale=(96, 96)),
    'RandomChoiceResize': dict(scales=[(96, 96)]),
    'RandomCrop': dict(crop_size=(96, 96)),
}


def shrink(node, root):
    """Digits for the data, 96 pixels, one process; the rest stays."""
    if isinstance(node, list | tuple):
        return type(node)(shrink(value, root) for value in node)
    if not isinstance(node, dict):
        return node
    changes = {
        'num_classes': 10,
        'num_workers': 0,
        'persistent_workers': False,
        'data_root': str(root),
        **SIZES.get(node.get('type'), {}),
    }
    for key, value in node.items():
        if key == 'ann_file' and '/annotations/' in value:  # of a metric
            name = f'annotations/{value.split("/")[-1]}'
            node[key] = f'{root}/{FILES.get(name, name)}'
        elif isinstance(value, str) and value in FILES:
            node[key] = FILES[value]
        elif key in changes:
            node[key] = changes[key]
        else:
            node[key] = shrink(value, root)
    if node.get('type') in ('CocoDataset', 'VOCDataset', 'CityscapesDataset'):
        node['metainfo'] = dict(classes=DIGIT_CLASSES)
    return node


def lite(model):
    """Few regions, and detections whatever their scores."""
    if 'roi_head' not in model:
        model.test_cfg.update(score_thr=0.0, max_per_img=10)
        return
    model.train_cfg.rpn_proposal.max_per_img = 64
    model.train_cfg.rcnn.sampler.num = 32
    model.test_cfg.rpn.max_per_img = 32
    model.test_cfg.rcnn.update(max_per_img=10, score_thr=0.0)


@pytest.mark.parametrize(
    'name', [n for n in NAMES if n not in (*LONGER, VIT_S)]
)
def test_it_trains_and_tests(name, scenes, weights, tmp_path, capsys):
    checkpoint = weights(kind_of(name))
    cfg = train.prepare(
        f'{PLACE}/{name}',
        init=checkpoint,
        max_iters=1,
        work_dir=str(tmp_path),
        seed=0,
    )
    shrink(cfg._cfg_dict, scenes)
    lite(cfg.model)
    cfg.train_dataloader.batch_size = 2
    cfg.default_hooks.checkpoint = None  # tested elsewhere, and large
    if isinstance(cfg.val_evaluator, list):  # one needs cityscapesscripts
        cfg.val_evaluator = cfg.test_evaluator = cfg.val_evaluator[0]
    cfg.param_scheduler = []  # from the first iteration at the full rate
    cfg.experiment_name = f'test_{name.replace("/", "_")}'
    runner = build_runner(cfg)
    runner.train()
    log = ''.join(capsys.readouterr())
    assert f'tensors equal those of {checkpoint}' in log
    backbone = runner.model.backbone.state_dict()
    file = expected_of('ours', kind_of(name), weights, None)
    still = {k for k in backbone if torch.equal(backbone[k], file[k])}
    assert still <= {'num_batches_tracked'}, still
    metrics = runner.test()
    key, masks = {
        'voc0712': ('pascal_voc/AP75', None),
        'lvis': ('lvis/bbox_AP75', 'lvis/segm_AP'),
    }.get(name.partition('/')[0], ('coco/bbox_mAP_75', 'coco/segm_mAP'))
    assert 0 <= metrics[key] <= 1
    assert (masks in metrics) == ('mask-rcnn' in name)


# ------------------------------------------------------------------- hostile


@pytest.mark.parametrize(
    'key, change, message',
    [
        (
            'layer4.2.conv3.weight',
            lambda state, key: state.pop(key),
            r'model\.roi_head\.shared_head does not .*: 49 of 54 tensors fit; '
            r'1 missing in the file: layer4\.2\.conv3\.weight',
        ),
        (
            'layer1.0.conv2.weight',
            lambda state, key: state.update({key: torch.zeros(64, 64, 1, 1)}),
            r'model\.backbone does not .*: 214 of 215 tensors fit; '
            r'1 of another shape: layer1\.0\.conv2\.weight',
        ),
    ],
)
def test_a_broken_file_is_named_before_training(
    key, change, message, weights, tmp_path
):
    path = str(tmp_path / 'broken.pth')
    content = torch.load(weights('r50'), weights_only=True)
    change(content['state_dict'], f'backbone.{key}')
    torch.save(content, path)
    cfg = load_config(f'{PLACE}/{C4}')
    initialize(cfg, path)
    (hook,) = hooks_of(cfg)
    with pytest.raises(checkpoint_io.CheckpointError, match=message):
        verify(hook, built(cfg))
