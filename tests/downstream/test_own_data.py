"""The commands of docs/transfer.md for own data, by our tools and theirs."""

import json
import re
import runpy
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import mmmoco
from mmmoco.apis import command, load_config
from mmmoco.apis.own_data import models
from mmmoco.apis.own_data.start import built, read_start
from mmmoco.engine import checkpoint_io

pytestmark = [pytest.mark.downstream, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'transfer.md').read_text()
SECTION = PAGE.partition('## Your classes, your data')[2].partition('\n## ')[0]
BLOCKS = re.findall(r'```bash\n(.*?)```', SECTION, re.DOTALL)
DETECTOR, SEGMENTOR, CLASSIFIER = (
    ''.join(block for block in BLOCKS if name in block)
    for name in ('my_detector', 'my_segmentor', 'my_classifier')
)
#: Makes networks and images small enough for a test.
LOADERS = [
    f'{part}_dataloader.{key}'
    for part in ('train', 'val', 'test')
    for key in ('num_workers=0', 'persistent_workers=False')
]
LITE = [
    'model.train_cfg.rpn_proposal.max_per_img=32',
    'model.train_cfg.rcnn.sampler.num=16',
    'model.test_cfg.rpn.max_per_img=16',
    'model.test_cfg.rcnn.max_per_img=8',
    'model.test_cfg.rcnn.score_thr=0.0',
]
SIZES = ['--image-size', '64', '--epochs', '1']


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Labels of three kinds, and a small pre-training checkpoint."""
    root = tmp_path_factory.mktemp('own')
    rng = np.random.default_rng(0)
    boxes = [[4, 4, 20, 24], [30, 20, 22, 30]]
    categories = [('sheep', 10), ("shepherd's dog", 20), ('{{ wolf }}', 0)]
    (root / 'images').mkdir()
    for part, numbers in (('train', (0, 1, 2, 3)), ('val', (4, 5))):
        images, objects = [], []
        for i in numbers:
            pixels = rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)
            labels = np.zeros((64, 80), np.uint8)
            images.append(
                dict(id=i, file_name=f'{i}.png', width=80, height=64)
            )
            for k, (x, y, w, h) in enumerate(boxes if i % 2 else []):
                number = categories[(i + k) % 3][1]
                objects.append(
                    dict(image_id=i, category_id=number, bbox=[x, y, w, h])
                )
                labels[y : y + h, x : x + w] = k + 1
            for folder, array in (('images', pixels), ('masks', labels)):
                (root / folder / part).mkdir(parents=True, exist_ok=True)
                path = root / folder / part / f'{i}.png'
                Image.fromarray(array).save(path)
            Image.fromarray(pixels).save(root / 'images' / f'{i}.png')
            flower = root / 'flowers' / part / 'abc'[i % 3]
            flower.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(flower / f'{i}.png')
        # Validation lists its categories in another order.
        listed = categories if part == 'train' else categories[::-1]
        content = dict(
            images=images,
            annotations=objects,
            categories=[dict(id=n, name=name) for name, n in listed],
        )
        (root / f'{part}.json').write_text(json.dumps(content))
    write_checkpoint(root / 'epoch_200.pth', 'mmpretrain.ResNet', depth=18)
    return root


def write_checkpoint(path, kind, **config):
    """Write what a pre-training leaves."""
    torch.manual_seed(0)
    from mmmoco.registry import MODELS

    backbone = MODELS.build(dict(type=kind, **config))
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    model = dict(
        type='MoCoV2',
        data_preprocessor=dict(
            type='ViewAugmentor', mean=[120.0, 110, 100], std=[60.0, 61, 62]
        ),
        backbone=dict(type=kind, **config),
    )
    text = f'model = {model}\n'
    torch.save({'state_dict': state, 'meta': {'cfg': text}}, path)
    return str(path)


@pytest.mark.parametrize('strides', [(1, 1, 1, 1), (1, 2, 2, 1)])
def test_a_backbone_of_other_strides_is_refused(strides, tmp_path):
    """Its shapes fit; its maps would be read as of another size."""
    path = write_checkpoint(
        tmp_path / 'a.pth', 'mmpretrain.ResNet', depth=18, strides=strides
    )
    with pytest.raises(ValueError, match='a detector needs 4, 8, 16 and 32'):
        models._stages(read_start(path), 'mmdet', {})


def run(line, options):
    """Run a line of the page in this process."""
    words = shlex.split(line)
    found = re.fullmatch(r'\$(DET|SEG|CLS)/(\w+)\.py', words[1])
    words = [
        re.sub(r'\$\(cat (.*)\)', lambda m: Path(m[1]).read_text(), word)
        for word in words
    ]
    if words[:2] == ['mmmoco', 'transfer-config']:
        words += SIZES
    elif '--cfg-options' not in words:
        words += ['--cfg-options', *options]
    if words[0] == 'mmmoco':
        command.main(words[1:])
        return
    assert words[0] == 'python', line
    library = {'DET': 'mmdet', 'SEG': 'mmseg', 'CLS': 'mmpretrain'}[found[1]]
    tools = Path(find_spec(library).origin).parent / '.mim' / 'tools'
    old, sys.argv = sys.argv, words[1:]
    try:
        runpy.run_path(str(tools / f'{found[2]}.py'), run_name='__main__')
    finally:
        sys.argv = old


def follow(text, options):
    """Run the lines of a block, but those that look for a library."""
    for line in text.replace('\\\n', ' ').splitlines():
        if not re.match('[A-Z]{3}=', line):
            run(line, options)


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def test_a_detector(here, capfd):
    follow(DETECTOR, [*LOADERS, *LITE])
    said = capfd.readouterr().out
    assert 'val: in the copy' in said and 'its categories stand as' in said
    cfg = Config.fromfile('my_detector.py')
    names = ['sheep', "shepherd's dog", '{{ wolf }}']
    assert list(cfg.classes) == names
    assert len(re.findall(r'\(test\).*coco/bbox_mAP: ', said)) == 2
    for folder in ('my_detector', 'theirs'):
        newest = Path('work_dirs', folder, 'last_checkpoint').read_text()
        meta = checkpoint_io.read(newest)['meta']
        assert list(meta['dataset_meta']['classes']) == names

    from mmdet.apis import DetInferencer

    detect = DetInferencer('my_detector.py', newest)
    found = detect('images/1.png')['predictions'][0]
    assert {*found['labels']} <= {0, 1, 2}
    assert list(detect.model.dataset_meta['classes']) == names


def test_a_segmentor(here, capfd):
    follow(SEGMENTOR, LOADERS)
    said = capfd.readouterr().out
    assert len(re.findall(r'\((?:val|test)\).*mIoU: ', said)) >= 2
    from mmseg.apis import MMSegInferencer

    newest = Path('work_dirs/my_segmentor/last_checkpoint').read_text()
    cfg = Config.fromfile('my_segmentor.py')
    segment = MMSegInferencer(
        'my_segmentor.py', newest, classes=cfg.classes, palette=cfg.palette
    )
    labels = segment('images/1.png')['predictions']
    assert labels.shape == (64, 80) and labels.max() < 3
    assert segment.model.dataset_meta['classes'][1] == 'zero'
    assert segment.visualizer.dataset_meta['classes'][1] == 'zero'


def test_a_classifier(here, capfd):
    follow(CLASSIFIER, LOADERS)
    said = capfd.readouterr().out
    assert re.search(r'\(test\).*accuracy/top1: ', said)
    assert "no images of 'a'" in said
    assert (
        Path('my_classifier_val.txt').read_text() == 'b/4.png 1\nc/5.png 2\n'
    )


BACKBONES = {
    'r18': ('mmpretrain.ResNet', dict(depth=18)),
    'r50x': (
        'mmpretrain.ResNeXt',
        dict(depth=50, groups=32, width_per_group=4),
    ),
    'vit': (
        'MoCoV3ViT',
        dict(
            arch=dict(
                embed_dims=192,
                num_layers=4,
                num_heads=12,
                feedforward_channels=768,
            ),
            img_size=64,
        ),
    ),
    'stem': (
        'MoCoV3ViT',
        dict(
            arch=dict(
                embed_dims=192,
                num_layers=3,
                num_heads=6,
                feedforward_channels=768,
                conv_stem=True,
            ),
            img_size=64,
        ),
    ),
    'swin': ('mmpretrain.SwinTransformer', dict(arch='tiny', img_size=64)),
    'convnext': ('mmpretrain.ConvNeXt', dict(arch='atto')),
}
TASKS = {
    'det': ['train.json', 'images'],
    'inst': ['train.json', 'images'],
    'seg': ['masks/train', 'images/train'],
    'cls': ['flowers/train'],
    'linear': ['flowers/train'],
}


@pytest.mark.parametrize('name', BACKBONES)
def test_every_backbone_takes_all_its_weights(name, here, tmp_path):
    """In every model, built by the libraries alone."""
    from mmengine.registry import init_default_scope

    from mmmoco.registry import MODELS

    kind, config = BACKBONES[name]
    path = write_checkpoint(tmp_path / f'{name}.pth', kind, **config)
    content = json.loads(Path('train.json').read_text())
    for item in content['annotations']:
        item['segmentation'] = [[1, 1, 9, 1, 9, 9]]
    Path('train.json').write_text(json.dumps(content))
    state = checkpoint_io.read(path)['state_dict']
    for task, given in TASKS.items():
        if name != 'r18' and task == 'inst':
            continue  # The backbone is that of det.
        out = str(tmp_path / f'{task}.py')
        options = dict(train=given, val=given, init=path, out=out)
        if task == 'linear' and name in ('swin', 'convnext'):
            with pytest.raises(ValueError, match='cannot be frozen'):
                mmmoco.transfer_config(task, **options)
            continue
        mmmoco.transfer_config(task, **options)
        cfg = load_config(out)
        assert cfg.to_dict() == Config.fromfile(out).to_dict()
        init_default_scope(cfg.default_scope)
        model = MODELS.build(cfg.model)
        model.init_weights()
        own = model.backbone.state_dict()
        same = {
            k
            for k, v in own.items()
            if torch.equal(v, state.get(f'backbone.{k}', torch.empty(0)))
        }
        other = own.keys() - same - {'pos_embed'}
        # Norms of the maps are new, as no pre-training needs them.
        assert not [k for k in other if not k.startswith('norm')], (
            task,
            other,
        )
        assert len(same) > 50
        seen = model.data_preprocessor
        assert seen.mean.flatten().tolist() == [120, 110, 100]
        assert seen.std.flatten().tolist() == [60, 61, 62]
        if task in ('det', 'inst', 'seg'):
            continue
        heads = [m for m in model.modules() if hasattr(m, 'num_heads')]
        if name == 'vit':
            assert {m.num_heads for m in heads} == {12}


def test_a_start_without_a_file():
    start = read_start('supervised')
    assert start.init['checkpoint'] == 'torchvision://resnet50'
    assert len(built(start.placed(), 'mmdet').state_dict()) == 318


def test_our_configs_are_bases_for_the_other_tools():
    """As the page says: a function that gives their path."""
    (text,) = re.findall(r'```python\n(_base_ = __import__.*?)```', PAGE, re.S)
    cfg = Config.fromstring(text, '.py')
    assert cfg.model.backbone.depth == 18 and cfg.default_scope == 'mmseg'
    with pytest.raises(AssertionError, match='does not support'):
        Config.fromstring("_base_ = 'mmmoco::benchmarks/x.py'\n", '.py')
