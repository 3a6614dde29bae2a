"""Dense evaluation from the command line, on the embedded scenes."""

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from mmmoco.apis import get_model, load_config
from mmmoco.apis.cli import UsageError
from mmmoco.apis.cli import main as call
from mmmoco.apis.dense import zero_shot_seg
from mmmoco.apis.dense.features import ModelFeatures, load_model, normalised
from mmmoco.apis.dense.jobs import (
    similarity,
    visualize_similarity,
    zero_shot_segmentation,
)
from mmmoco.apis.dense.object_masks import SceneObjects
from mmmoco.apis.dense.subject import digit_scenes
from mmmoco.apis.exchange.jobs import import_checkpoint
from mmmoco.datasets.digit_scenes import DigitScenes

from ..conftest import optional, results

pytestmark = pytest.mark.slow

MMC = 'demo/mmc_digits'


@pytest.fixture(scope='module')
def scenes():
    return SceneObjects(
        DigitScenes(split='val', size=64, digits_per_image=2, num_scenes=5)
    )


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('run') / 'epoch_1.pth'
    model = get_model(MMC)
    with torch.no_grad():
        for p in model.teacher.parameters():
            p.add_(0.1 * torch.randn_like(p))
    torch.save({'state_dict': model.state_dict()}, path)
    return path


def test_the_tool_reports_and_writes(checkpoint, tmp_path, capsys):
    MMLogger._instance_dict.clear()  # That of the fixture writes elsewhere.
    call(
        zero_shot_segmentation,
        [
            str(checkpoint),
            '--config',
            MMC,
            '--limit',
            '6',
            '--work-dir',
            str(tmp_path),
        ],
    )
    (line,) = results(tmp_path)
    assert line['task'] == 'zero-shot segmentation'
    protocol, m = line['protocol'], line['metrics']
    assert (protocol['size'], protocol['images']) == (64, 6)
    assert protocol['objects'] >= 6 and protocol['prompt'] == 'centre'
    for name in ('miou_t0.1', 'miou_held_out', 'miou_oracle', 'ap'):
        assert 0 <= m[f'{name}_objects'] <= 100
        assert 0 <= m[f'{name}_classes'] <= 100
    assert m['miou_oracle_objects'] >= m['miou_t0.3_objects']
    rows = (tmp_path / 'zero_shot.csv').read_text().splitlines()
    assert len(rows) == 102
    best = max(float(row.split(',')[1]) for row in rows[1:])
    assert best == pytest.approx(m['miou_oracle_objects'])
    assert (tmp_path / 'zero_shot.png').stat().st_size > 5000
    assert 'oracle' in capsys.readouterr().out


def test_scenes_are_of_the_kind_that_the_demo_trains_on():
    trained = load_config(MMC).train_dataloader.dataset
    painter = digit_scenes('val', 1).scenes.painter
    for name in ('background', 'contrast', 'noise', 'digits_per_image'):
        assert getattr(painter, name) == tuple(trained[name])
    assert (painter.split, painter.size) == ('val', trained['size'])


def test_prompts_cost_no_forward(scenes):
    """Two batches of images, two forwards, however many prompts."""
    model = get_model(MMC)
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    features = ModelFeatures(model, 64)
    one = zero_shot_seg.score_dataset(features, scenes, batch_size=3)
    assert len(calls) == 2
    many = zero_shot_seg.score_dataset(
        features, scenes, 'random', prompts=20, batch_size=3
    )
    assert len(calls) == 4
    assert len(one.classes) == len(many.classes) == len(many.scores.ap)
    again = zero_shot_seg.score_dataset(
        features, scenes, 'random', prompts=20, batch_size=2
    )
    torch.testing.assert_close(
        again.scores.ious, many.scores.ious, atol=0.01, rtol=0
    )


def test_several_prompts_are_averaged(scenes):
    features = ModelFeatures(get_model(MMC), 64)
    item = scenes[0]
    (tokens,) = features([item.image])
    masks = torch.from_numpy(item.masks)
    points = [(10, 10), (20, 30), (40, 50), (60, 5)]
    both = zero_shot_seg._score(tokens[0], points, masks, 2, 'nearest', 3)
    for q in range(2):
        each = [
            zero_shot_seg._score(
                tokens[0], [point], masks[q : q + 1], 1, 'nearest'
            )
            for point in points[2 * q : 2 * q + 2]
        ]
        expected = torch.cat([e.ious for e in each]).mean(0)
        torch.testing.assert_close(both.ious[q], expected)


def test_colour_and_key_encoder_differ_from_the_query(checkpoint, tmp_path):
    for options in ([], ['--encoder', 'key'], ['--features', 'colour']):
        call(
            zero_shot_segmentation,
            [str(checkpoint), '--config', MMC, '--limit', '4', *options]
            + ['--work-dir', str(tmp_path)],
        )
    lines = results(tmp_path)
    assert len({line['metrics']['ap_objects'] for line in lines}) == 3
    assert lines[1]['protocol']['encoder'] == 'key'


def test_feature_maps_of_a_convolutional_net(scenes):
    features = ModelFeatures(get_model('demo/mocov2_digits'), 64)
    (maps,) = features([scenes[0].image, scenes[1].image])
    assert maps.shape == (2, 128, 8, 8)
    scored = zero_shot_seg.score_dataset(features, scenes)
    assert len(scored.images) == len(scored.classes) > 5


def test_layers_of_a_transformer(scenes):
    model = get_model(MMC)
    seen = {}
    for i, layer in enumerate(model.backbone.layers):
        layer.register_forward_hook(
            lambda module, args, out, i=i: seen.update({i: out})
        )
    maps = ModelFeatures(model, 64, layers=[2, 0])([scenes[0].image])
    assert len(maps) == 2
    for i, own in zip((0, 2), maps, strict=True):
        tokens = seen[i][:, 1:].transpose(1, 2).view(1, -1, 8, 8)
        torch.testing.assert_close(own, tokens)
    with pytest.raises(UsageError, match='layers 0 to 3'):
        ModelFeatures(get_model(MMC), 64, layers=[4])
    with pytest.raises(UsageError, match='multiple of the patch size 8'):
        ModelFeatures(get_model(MMC), 60)


def test_a_file_with_a_backbone_only(checkpoint, tmp_path):
    state = torch.load(checkpoint)['state_dict']
    own = {k: v for k, v in state.items() if k.startswith('backbone.')}
    path = tmp_path / 'backbone.pth'
    torch.save({'state_dict': own}, path)
    model = load_model(load_config(MMC), str(path))
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, own[f'backbone.{name}'])
    with pytest.raises(FileNotFoundError, match='nowhere'):
        load_model(load_config(MMC), str(tmp_path / 'nowhere.pth'))


@torch.no_grad()
def test_an_imported_timm_checkpoint(scenes, tmp_path):
    """Patch tokens as timm computes them, through the converter's file."""
    timm = optional('timm')
    options = dict(img_size=64, patch_size=16, embed_dim=192, depth=2)
    theirs = timm.models.VisionTransformer(
        num_heads=3, num_classes=0, **options
    ).eval()
    torch.save(theirs.state_dict(), tmp_path / 'theirs.pth')
    report = import_checkpoint(
        str(tmp_path / 'theirs.pth'), str(tmp_path / 'ours.pth')
    )
    cfg = load_config('mmc_vit-b_4xb64_400e')
    cfg.model.backbone = report.model
    heads = (cfg.model.heads.pat, cfg.model.heads.cls)
    for head in heads:
        head.projector.in_channels = 192
        head.projector.norm_cfg = dict(type='BN1d')
    cfg.model.heads.rec.in_channels = 192
    model = load_model(cfg, str(tmp_path / 'ours.pth'))
    images = [scenes[i].image for i in range(2)]
    (own,) = ModelFeatures(model, 64)(images)
    tokens = theirs.forward_features(normalised(model, images, 64).cpu())
    expected = tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(own.cpu(), expected, atol=1e-4, rtol=1e-4)
    scored = zero_shot_seg.score_dataset(ModelFeatures(model, 64), scenes)
    assert scored.scores.ious.isfinite().all()


def test_similarity_by_layer(checkpoint, tmp_path):
    call(
        similarity,
        [
            str(checkpoint),
            '--config',
            MMC,
            '--limit',
            '4',
            '--layers',
            '0',
            '3',
        ]
        + ['--background', '--work-dir', str(tmp_path)],
    )
    first, last = results(tmp_path)
    assert (first['protocol']['layer'], last['protocol']['layer']) == (0, 3)
    for line in (first, last):
        assert 0 <= line['metrics']['overlap'] <= 1
        assert -1 <= line['metrics']['inter_mean'] <= 1
    assert first['metrics'] != last['metrics']
    assert (tmp_path / 'similarity.png').stat().st_size > 5000


def test_from_python_a_config_that_was_read_before(checkpoint, tmp_path):
    found = similarity(
        str(checkpoint),
        config=load_config(MMC),
        limit=4,
        work_dir=str(tmp_path),
    )
    (line,) = results(tmp_path)
    assert found == {'last': line['metrics']}


def test_the_config_is_read_from_the_checkpoint(tmp_path):
    """The same figures, without a word about the model."""
    model, path = get_model(MMC), tmp_path / 'x.pth'
    meta = dict(cfg=load_config(MMC).pretty_text)
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    given = dict(limit=4, work_dir=str(tmp_path))
    told = similarity(str(path), **given)
    assert told == similarity(str(path), config=MMC, **given)
    with pytest.raises(UsageError, match='Give a checkpoint, or a --config'):
        similarity()


def test_pictures(checkpoint, tmp_path):
    call(
        visualize_similarity,
        [str(checkpoint), '--config', MMC, '--limit', '3', '--count', '2']
        + ['--reconstructions', '--work-dir', str(tmp_path)],
    )
    for name in ('similarity_maps.png', 'reconstructions.png'):
        assert (tmp_path / name).stat().st_size > 5000


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--prompts', '3'], '--prompt random'),
        (['--dataset', 'coco'], 'needs --annotations'),
        (['--dataset', 'coco', '--annotations', 'x.json'], 'needs --images'),
        (['--dataset', 'voc', '--annotations', 'nowhere'], 'no folder'),
        (['--size', '50'], 'multiple of the patch size'),
        (['--min-area', '5000', '--limit', '3'], 'no object'),
        (['--limit', '1'], 'two are the least'),
        (['--limit', '-1'], '--limit -1: must be at least 1'),
    ],
)
def test_bad_input_is_one_line(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        call(
            zero_shot_segmentation,
            ['--config', MMC, *options, '--work-dir', str(tmp_path)],
        )
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-2] and 'Traceback' not in ''.join(lines)


def test_images_are_resized_and_made_grey():
    model = get_model(MMC)
    image = np.zeros((30, 50, 3), np.uint8)
    image[..., 0] = 200
    x = normalised(model, [image, image[:20]], 16)
    assert x.shape == (2, 1, 16, 16)
    torch.testing.assert_close(
        x, torch.full_like(x, (round(200 * 0.299) - 110) / 45)
    )
