"""A folder that is given away, in the libraries that read it."""

import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from mmengine.registry import DefaultScope
from PIL import Image

import mmmoco
from mmmoco.apis import load_config
from mmmoco.apis.config.adapt import limit_iterations
from mmmoco.apis.exchange.jobs import export_backbone, import_checkpoint
from mmmoco.apis.exchange.model_card import span
from mmmoco.convert.exporting import rename_backbone
from mmmoco.engine import checkpoint_io
from mmmoco.registry import MODELS

from ..conftest import call, one_line, optional, results
from ..convert import layouts
from .test_export_backbone import built

pytestmark = pytest.mark.slow

R18 = dict(type='mmpretrain.ResNet', depth=18)
TINY = dict(embed_dims=96, num_layers=2, num_heads=3, feedforward_channels=200)
VIT = dict(
    type='mmpretrain.VisionTransformer', arch=TINY, img_size=32, patch_size=8
)
#: Name → config and size of the images.
NETS = {
    'resnet18': (R18, 64),
    'resnet50': (dict(type='MoCoV3ResNet', depth=50), 64),
    'resnet18-13-bands': (dict(R18, in_channels=13), 64),
    'resnet18-half': (dict(R18, base_channels=32), 64),
    'resnet18-cifar': (dict(type='mmpretrain.ResNet_CIFAR', depth=18), 32),
    'resnext50': (
        dict(
            type='mmpretrain.ResNeXt', depth=50, groups=32, width_per_group=4
        ),
        64,
    ),
    'vit-small': (dict(type='MoCoV3ViT', arch='small', img_size=64), 64),
    'vit-13-bands': (
        dict(VIT, type='MoCoV3ViT', in_channels=13, stop_grad_conv1=True),
        32,
    ),
    'vit-rectangle': (dict(VIT, img_size=(32, 48)), (32, 48)),
    'vit-layer-scale': (
        dict(VIT, layer_scale_init_value=0.1, qkv_bias=False),
        32,
    ),
    'vit-no-norm': (dict(VIT, final_norm=False), 32),
}
#: What timm cannot describe.
OTHERS = {
    'vit-conv': (
        dict(type='MoCoV3ViT', arch=dict(TINY, conv_stem=True), img_size=32),
        32,
    ),
    'resnet18-caffe': (dict(R18, style='caffe', dilations=(1, 1, 1, 2)), 64),
    'plain': (dict(type='PlainConvNet', norm_cfg=dict(type='SplitBN')), 32),
}


#: In mmdet, which has ResNets and ResNeXts of its own.
IN_MMDET = ['resnet18', 'resnext50']


def ours(config, size):
    """One of our backbones with values of its own, and images for it."""
    with DefaultScope.overwrite_default_scope('mmmoco'):
        net = MODELS.build(config)
    positions = getattr(net, 'pos_embed', None)
    positions = None if positions is None else positions.clone()
    layouts.settle(net, 7)
    if positions is not None:
        with torch.no_grad():
            net.pos_embed.copy_(positions)
    net.eval()
    channels = config.get('in_channels', 3)
    generator = torch.Generator().manual_seed(1)
    sides = (size, size) if isinstance(size, int) else size
    return net, torch.randn(2, channels, *sides, generator=generator)


def save(net, path, config=None, **more):
    state = {f'backbone.{k}': v for k, v in net.state_dict().items()}
    meta = {'epoch': 5, **more}
    if config is not None:
        channels = config.get('in_channels', 3)
        eyes = dict(
            type='ViewAugmentor',
            mean=[100.0 + i for i in range(channels)],
            std=[51.0] * channels,
        )
        model = dict(type='MoCoV2', backbone=config, data_preprocessor=eyes)
        meta['cfg'] = f'model = {model!r}'
    torch.save({'state_dict': state, 'meta': meta}, path)


def exported(tmp_path, net, config=None, **options):
    save(net, tmp_path / 'ours.pth', config)
    return export_backbone(
        str(tmp_path / 'ours.pth'), str(tmp_path / 'out'), **options
    )


def features(net, x):
    out = net(x)
    out = out if isinstance(out, torch.Tensor) else out[-1]
    return out.mean((2, 3)) if out.dim() == 4 else out


def agree(theirs, own):
    assert theirs.shape == own.shape and own.abs().max() > 0.1
    worst = (theirs - own).abs().max() / own.abs().max().clamp(min=1)
    assert worst < 1e-5, float(worst)


def code_of(folder):
    """Return the Python that the card holds, block by block."""
    text = (folder / 'README.md').read_text()
    return re.findall(r'^```python\n(.*?)^```', text, re.DOTALL | re.MULTILINE)


@torch.no_grad()
@pytest.mark.parametrize('name', NETS)
def test_all_that_the_card_says_loads_the_same_network(
    tmp_path, monkeypatch, name
):
    """timm by its config, torchvision, mmpretrain and Detectron2 by code."""
    optional('timm')
    config, size = NETS[name]
    net, x = ours(config, size)
    out = exported(tmp_path, net, config)
    own = features(net, x)
    monkeypatch.chdir(out.path)
    seen = []
    for code in code_of(out.path):
        space = {}
        exec(code, space)
        if 'net' in space:
            agree(features(space['net'], x), own)  # It says eval() itself.
            seen.append('timm' if 'timm' in space else 'torchvision')
        elif 'backbone' in space:
            settings = dict(space['backbone'])
            init = settings.pop('init_cfg')
            theirs = built('mmpretrain', settings, init['checkpoint'], '')
            agree(features(theirs, x), own)
            seen.append('mmpretrain')
            assert space['mean'][:2] == [100, 101]
        elif 'content' in space:
            for key, value in rename_backbone(
                net.state_dict(), 'detectron2'
            ).items():
                found = torch.from_numpy(space['model'].pop(key))
                assert torch.equal(found, value), key
            assert not space['model']
            seen.append('detectron2')
    expected = {'timm', 'torchvision', 'mmpretrain', 'detectron2'}
    if name in ('resnet18-half', 'vit-rectangle', *list(NETS)[-2:]):
        expected.remove('torchvision')
    if 'vit' in name or name in ('resnet18-half', 'resnet18-cifar'):
        expected.remove('detectron2')
    assert set(seen) == expected
    assert (out.path / 'config.json').is_file() == (name != 'resnet18-cifar')


@torch.no_grad()
@pytest.mark.downstream
@pytest.mark.parametrize('name', IN_MMDET)
def test_the_card_fits_mmdets_own_class(tmp_path, monkeypatch, name):
    config, size = NETS[name]
    net, x = ours(config, size)
    out = exported(tmp_path, net, config)
    monkeypatch.chdir(out.path)
    *_, save_code, config_code, _ = code_of(out.path)
    exec(save_code, {})
    space = {}
    exec(config_code, space)
    settings = space['backbone']
    settings['type'] = settings['type'].removeprefix('mmpretrain.')
    if name == 'resnext50':  # Its widths have another name there.
        settings['base_width'] = settings.pop('width_per_group')
    path = settings.pop('init_cfg')['checkpoint']
    theirs = built('mmdet', settings, path, '')
    agree(features(theirs, x), features(net, x))


@torch.no_grad()
@pytest.mark.parametrize('name', OTHERS)
def test_what_timm_has_not_comes_without_a_false_config(
    tmp_path, monkeypatch, name
):
    config, size = OTHERS[name]
    net, x = ours(config, size)
    out = exported(tmp_path, net, config)
    assert sorted(os.listdir(out.path)) == ['README.md', 'model.safetensors']
    assert 'timm is not known' in str(out) or 'timm has no' in str(out)
    monkeypatch.chdir(out.path)
    save_code, config_code = code_of(out.path)
    exec(save_code, {})
    space = {}
    exec(config_code, space)
    settings = space['backbone']
    path = settings.pop('init_cfg')['checkpoint']
    agree(features(built('mmmoco', settings, path, ''), x), features(net, x))


@torch.no_grad()
@pytest.mark.parametrize(
    'given',
    [
        dict(model_name='convnext_atto'),
        dict(model_name='vit_tiny_patch16_224', img_size=32, in_channels=13),
    ],
)
def test_networks_of_timm_go_back_to_timm(tmp_path, monkeypatch, given):
    optional('timm')
    config = dict(type='mmpretrain.TIMMBackbone', **given)
    net, x = ours(config, 32)
    out = exported(tmp_path, net, config)
    monkeypatch.chdir(out.path)
    timm_code, save_code, config_code = code_of(out.path)
    spaces = [{}, {}, {}]
    for code, space in zip((timm_code, save_code, config_code), spaces):
        exec(code, space)
    theirs = spaces[0]['net'].eval()(x)
    agree(theirs, net(x)[-1])
    settings = spaces[2]['backbone']
    path = settings.pop('init_cfg')['checkpoint']
    agree(built('mmpretrain', settings, path, '')(x)[-1], theirs)


@torch.no_grad()
def test_what_timm_makes_of_the_folder(tmp_path):
    timm = optional('timm')
    net, x = ours(*NETS['resnet18-13-bands'])
    out = exported(tmp_path, net, NETS['resnet18-13-bands'][0])
    folder = f'local-dir:{out.path}'
    theirs = timm.create_model(folder, pretrained=True, num_classes=7).eval()
    agree(
        theirs.forward_head(theirs.forward_features(x), True), features(net, x)
    )
    assert theirs.get_classifier().out_features == 7
    eyes = timm.data.resolve_model_data_config(theirs)
    assert eyes['input_size'] == [13, 224, 224]
    assert eyes['std'] == [0.2] * 13 and eyes['mean'][0] == 0.39215686
    maps = timm.create_model(folder, pretrained=True, features_only=True)
    assert torch.allclose(maps.eval()(x)[-1], net(x)[-1], atol=1e-4)


def test_one_more_channel_or_size_is_adapted_by_timm(tmp_path):
    timm = optional('timm')
    for config in (R18, VIT):
        net, _ = ours(config, 32)
        out = exported(tmp_path, net, overwrite=True, num_heads=3)
        folder = f'local-dir:{out.path}'
        four = timm.create_model(folder, pretrained=True, in_chans=4).eval()
        assert four(torch.zeros(1, 4, 32, 32)).shape[0] == 1
        assert (
            'mean'
            not in json.loads((out.path / 'config.json').read_text())[
                'pretrained_cfg'
            ]
        )
        assert 'does not tell mean and std' in str(out)
    larger = timm.create_model(folder, pretrained=True, img_size=48).eval()
    assert larger(torch.zeros(1, 3, 48, 48)).shape == (1, 96)


@pytest.mark.parametrize('name', ['resnet18-13-bands', 'vit-small'])
def test_the_weights_come_back_bit_by_bit(tmp_path, name):
    net, _ = ours(*NETS[name])
    out = exported(tmp_path, net, NETS[name][0])
    back = tmp_path / 'back.pth'
    import_checkpoint(str(out.path / 'model.safetensors'), str(back))
    content = checkpoint_io.read(back)
    eyes = content['meta']['preprocessing']
    assert eyes['mean'][:2] == pytest.approx([100, 101])
    assert eyes['std'] == pytest.approx([51] * len(eyes['mean']))
    state = content['state_dict']
    own = net.state_dict()
    assert state.keys() == {f'backbone.{key}' for key in own}
    for key, value in own.items():
        assert torch.equal(state[f'backbone.{key}'], value), key


@torch.no_grad()
@pytest.mark.parametrize('name', ['plain', 'vit-rectangle'])
def test_onnx_takes_any_number_of_images(tmp_path, monkeypatch, name):
    runtime = optional('onnxruntime')
    optional('onnxscript')
    config, size = {**NETS, **OTHERS}[name]
    net, _ = ours(config, size)
    out = exported(tmp_path, net, config, onnx=True)
    monkeypatch.chdir(out.path)
    space = {}
    exec(code_of(out.path)[-1], space)
    x = torch.randn(5, *space['images'].shape[1:])
    session = runtime.InferenceSession('model.onnx')
    wide = torch.randn(1, 3, 48, 80)
    fixed = 'vit' in name
    for images in [x] if fixed else [x, wide]:
        found = session.run(None, {'images': images.numpy()})[0]
        found = torch.from_numpy(found)
        assert torch.allclose(found, features(net, images), atol=1e-4)
    assert len(space['features']) == 2
    takes = '32 × 48 pixels only' if fixed else 'any size'
    for said in (str(out), (out.path / 'README.md').read_text()):
        assert f'any number of images, {takes}' in said


def test_onnx_that_computes_something_else_is_not_written(
    tmp_path, monkeypatch
):
    optional('onnxruntime')
    optional('onnxscript')
    from mmmoco.apis.exchange import onnx_file

    net, _ = ours(*OTHERS['plain'])
    monkeypatch.setattr(onnx_file, 'TOLERANCE', 0.0)
    with pytest.raises(ValueError, match='ONNX computes features that differ'):
        exported(tmp_path, net, OTHERS['plain'][0], onnx=True)
    assert os.listdir(tmp_path) == ['ours.pth']


# ---------------------------------------------------------- what it tells


def test_card_and_config_of_a_recipe(tmp_path):
    cfg = load_config('mocov2_r18_1xb512_cifar10')
    net, _ = ours(cfg.model.backbone.to_dict(), 32)
    save(net, tmp_path / 'e.pth', epoch=200, iter=19400, cfg=cfg.pretty_text)
    out = export_backbone(
        str(tmp_path / 'e.pth'), str(tmp_path / 'out'), license='cc-by-4.0'
    )
    text = (out.path / 'README.md').read_text()
    head = yaml.safe_load(text.split('---')[1])
    assert head['license'] == 'cc-by-4.0' and 'mocov2' in head['tags']
    for words in (
        'https://arxiv.org/abs/2003.04297',
        '| trained on | `cifar10` |',
        '| epochs | `200` |',
        '| made from | `e.pth` |',
        '32 × 32 pixels',
        '[0.4914, 0.4822, 0.4465]',
        '| kept of the resized side | 1 |',
        '| images in a batch (per process) | `512` |',
        'None was measured.',
    ):
        assert words in text, words
    assert 'Note' not in str(out)


def test_figures_of_a_run(tmp_path, small_config, runner_of):
    cfg = small_config(knn=True)
    runner_of(cfg).train()
    run = tmp_path / 'run'
    (line,) = results(run)
    out = export_backbone(str(run / 'epoch_1.pth'), str(tmp_path / 'out'))
    figures = (out.path / 'README.md').read_text().split('## Figures')[1]
    assert f'`top1` {line["metrics"]["top1"]:.2f}' in figures
    assert '`knn`' in figures and f'k={line["protocol"]["k"]}' in figures
    # Those of another epoch and of another file do not count.
    for change in (
        dict(epoch=2),
        dict(checkpoint='x', checkpoint_hash='0'),
        dict(config_hash='0'),
    ):
        text = json.dumps({**line, **change})
        (run / 'results.jsonl').write_text(text + '\n')
        out = export_backbone(
            str(run / 'epoch_1.pth'), str(tmp_path / 'out'), overwrite=True
        )
        text = (out.path / 'README.md').read_text()
        assert 'None was measured.' in text, change
    (run / 'results.jsonl').write_text('{}\n')
    with pytest.raises(ValueError, match='results.jsonl'):
        export_backbone(str(run / 'epoch_1.pth'), str(tmp_path / 'new'))
    assert not (tmp_path / 'new').exists()


def test_figures_of_a_run_of_iterations(tmp_path, small_config, runner_of):
    """Those of the same iteration, and of the untrained network."""
    cfg = small_config(knn=True)
    limit_iterations(cfg, 2)
    cfg.custom_hooks[-1].update(interval=1, initial=True)
    runner_of(cfg).train()
    run = tmp_path / 'run'
    lines = results(run)
    assert [line['iteration'] for line in lines] == [0, 1, 2]
    for line, top1 in zip(lines, (11.0, 22.0, 33.0), strict=True):
        line['metrics'] = {'top1': top1}
    (run / 'results.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    out = export_backbone(
        str(run / 'iter_2.pth'),
        str(tmp_path / 'out'),
        config=small_config(),  # As it was before the run's options.
    )
    text = (out.path / 'README.md').read_text()
    assert re.search(r'`top1` 11.00 .*training=none yet', text)
    assert '22.00' not in text and '`top1` 33.00' in text
    assert '| iterations | `2` |' in text and '| epochs |' not in text


class Tags(HTMLParser):
    """The elements of a page, and what stands in code."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.code = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ('href', 'src')]
        if tag == 'code':
            self.code.append('')

    def handle_data(self, data):
        if self.tags and self.tags[-1] == 'code' and self.code:
            self.code[-1] += data


HOSTILE = [
    '<script>alert(1)</script>',
    '![x](http://evil.example/x.png) [a](javascript:b)',
    '`` ` </code><img src=x> `',
    '\n\n---\nlicense: mit\n---\n# Owned\n',
    '| a | b |\n```python\nimport os\n```',
    'http://evil.example \u202e\x1b[31m\x00',
]


def page_of(text):
    return Tags(MarkdownIt('gfm-like', {'linkify': False}).render(text))


@settings(max_examples=100, deadline=None)
@given(st.text() | st.sampled_from(HOSTILE))
def test_a_text_of_anybody_stays_a_text(text):
    page = page_of(f'| a | b |\n| --- | --- |\n| x {span(text)} | y |')
    assert not page.links and set(page.tags) <= {
        *('table', 'thead', 'tbody', 'tr', 'th', 'td', 'code')
    }
    assert page.tags.count('td') == 2 and page.tags.count('code') <= 1
    assert all(c.isprintable() for c in span(text))


@pytest.mark.parametrize('text', HOSTILE)
def test_a_card_says_nothing_that_a_checkpoint_wants(tmp_path, text):
    net, _ = ours(R18, 64)
    eyes = dict(type='ViewAugmentor', mean=[text] * 3, std=[1e999] * 3)
    loader = dict(
        batch_size=text, dataset=dict(type=text, data_root=f'/home/{text}')
    )
    told = dict(
        model=dict(type=text, backbone=R18, data_preprocessor=eyes),
        train_dataloader=loader,
        knn=[text],
        input_range=text,
    )
    cfg = '\n'.join(f'{k} = {v!r}' for k, v in told.items())
    save(net, tmp_path / 'a.pth', method=text, cfg=cfg.replace('inf', '1e999'))
    line = dict(
        task=text,
        protocol={'k': text, text: 1},
        metrics={text: 1.0, 'b': text},
        config_hash=text,
        checkpoint='a.pth',
    )
    from mmmoco.engine.results import file_hash

    line['checkpoint_hash'] = file_hash(tmp_path / 'a.pth')
    (tmp_path / 'results.jsonl').write_text(json.dumps(line) + '\n')
    out = export_backbone(str(tmp_path / 'a.pth'), str(tmp_path / 'out'))
    card = (out.path / 'README.md').read_text()
    _, head, body = card.split('---\n', 2)
    assert set(yaml.safe_load(head)) == {
        *('license', 'library_name', 'pipeline_tag', 'tags')
    }
    assert 'mit' not in yaml.safe_load(head)['license']
    page = page_of(body)
    assert not page.links
    assert {'script', 'img'}.isdisjoint(page.tags)
    assert page.tags.count('h1') == 1 and page.tags.count('h2') == 4
    code = code_of(out.path)
    assert not any('import os' in block for block in code)
    assert 'mean' not in json.loads((out.path / 'config.json').read_text())


# ------------------------------------------------------------------ refusals


def test_nothing_of_the_users_is_overwritten(tmp_path, capsys):
    net, _ = ours(R18, 64)
    first = exported(tmp_path, net)
    ours_pth, folder = tmp_path / 'ours.pth', first.path
    before = (folder / 'README.md').read_bytes()
    (tmp_path / 'file').write_text('x')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.tex').write_text('x')
    (tmp_path / 'odd' / 'README.md').mkdir(parents=True)
    for argv, words in (
        ([folder], ['holds an export already', '--overwrite']),
        ([tmp_path / 'mine', '--overwrite'], ['thesis.tex', 'new folder']),
        ([tmp_path / 'odd', '--overwrite'], ['README.md', 'new folder']),
        ([tmp_path / 'file'], ['no folder']),
        ([tmp_path / 'x.pth'], ['x.pth', '--to']),
        ([tmp_path / 'x', '--license', 'a b'], ["'a b'", 'apache-2.0']),
        ([tmp_path / 'x', '--to', 'timm', '--onnx'], ['--onnx', 'folder']),
        (
            [tmp_path / 'x', '--to', 'timm', '--license', 'mit'],
            ['--license'],
        ),
    ):
        assert call(export_backbone, ours_pth, *argv) == 2, argv
        line = one_line(capsys)
        assert all(word in line for word in words), line
    assert (folder / 'README.md').read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {
        *('ours.pth', 'out', 'file', 'mine', 'odd')
    }
    again = exported(tmp_path, net, overwrite=True, license='mit')
    assert again.path == folder
    assert (folder / 'README.md').read_bytes() != before


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    net, _ = ours(R18, 64)
    folder = exported(tmp_path, net).path
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    write_text = checkpoint_io.write_text

    def full(path, text):
        if path.name == 'README.md':
            raise OSError(28, 'No space left on device', str(path))
        write_text(path, text)

    monkeypatch.setattr(checkpoint_io, 'write_text', full)
    for out in ('out', 'new'):
        with pytest.raises(OSError, match='No space'):
            export_backbone(
                str(tmp_path / 'ours.pth'),
                str(tmp_path / out),
                overwrite=True,
            )
    assert sorted(os.listdir(tmp_path)) == ['ours.pth', 'out']
    assert before == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_an_empty_folder_and_a_link_to_one_will_do(tmp_path):
    net, _ = ours(R18, 64)
    (tmp_path / 'real').mkdir()
    (tmp_path / 'out').symlink_to('real')
    assert exported(tmp_path, net).path == tmp_path / 'real'
    assert (tmp_path / 'out').is_symlink()
    assert len(os.listdir(tmp_path / 'real')) == 3


def test_bgr_and_broken_weights_leave_nothing(tmp_path):
    net, _ = ours(R18, 64)
    eyes = dict(mean=[1.0] * 3, std=[1.0] * 3, channel_order='bgr')
    save(net, tmp_path / 'ours.pth', preprocessing=eyes)
    with pytest.raises(ValueError, match='BGR.*--to mmpretrain'):
        export_backbone(str(tmp_path / 'ours.pth'), str(tmp_path / 'out'))
    del net.layer4[1].bn2.running_var
    with pytest.raises(checkpoint_io.CheckpointError, match='layer4.1.bn2'):
        exported(tmp_path, net, R18)
    assert os.listdir(tmp_path) == ['ours.pth']


@torch.no_grad()
def test_one_image_has_the_same_features_everywhere(tmp_path):
    """By extract_feat, the features command, and timm's own transforms."""
    timm = optional('timm')
    cfg = mmmoco.load_config(
        'mocov2_r50_8xb32', {'view_size': 64, 'model.backbone.depth': 18}
    )
    path = str(tmp_path / 'epoch_1.pth')
    state = mmmoco.get_model(cfg).state_dict()
    torch.save({'state_dict': state, 'meta': {'cfg': cfg.pretty_text}}, path)
    out = str(mmmoco.export_backbone(path, str(tmp_path / 'out')).path)
    net = timm.create_model(f'local-dir:{out}', pretrained=True).eval()
    settings = timm.data.resolve_model_data_config(net)
    transform = timm.data.create_transform(**settings, is_training=False)
    model = mmmoco.get_model(checkpoint=path)
    draws = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    for width, height in ((64, 64), (31, 200), (300, 40), (73, 72)):
        pixels = draws.integers(0, 256, (height, width, 4), dtype=np.uint8)
        for mode, image in {
            'L': Image.fromarray(pixels[..., 0]),
            'RGB': Image.fromarray(pixels[..., :3].copy()),
            'RGBA': Image.fromarray(pixels),
            '16': Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
        }.items():
            image.save(tmp_path / 'images' / f'{mode}-{width}x{height}.png')
    found = mmmoco.extract_features(
        path, data=str(tmp_path / 'images'), out=str(tmp_path / 'f.npz')
    )
    with np.load(tmp_path / 'f.npz') as file:
        paths = file['paths'].tolist()
    assert len(paths) == 16
    for name, values in zip(paths, found['features'], strict=True):
        image = Image.open(name)
        if image.mode == 'I;16':  # PIL would cut it at 255.
            image = Image.fromarray((np.array(image) // 257).astype(np.uint8))
        theirs = net(transform(image.convert('RGB'))[None])[0]
        for seen in (theirs, model.extract_feat(name)[0]):
            agree(seen, torch.from_numpy(values))
