"""BYOL is trained, resumed and exported by the jobs that train MoCo."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import mmmoco

CONFIG = str(Path(__file__).with_name('byol_plain-conv-net_1xb128_digits.py'))
#: Two epochs of four iterations, without k-NN; a network whose tensors tell
#: its kind.
TINY = {
    'train_dataloader.batch_size': 16,
    'train_dataloader.dataset.num_scenes': 64,
    'train_cfg.max_epochs': 2,
    'default_hooks.checkpoint.interval': 1,
}


def load():
    cfg = mmmoco.load_config(CONFIG)
    cfg.merge_from_dict(TINY)
    cfg.model.backbone = dict(
        type='mmpretrain.ResNet_CIFAR',
        depth=18,
        in_channels=1,
        stem_channels=4,
        base_channels=4,
    )
    cfg.custom_hooks = [h for h in cfg.custom_hooks if h.type != 'KNNHook']
    next(h for h in cfg.custom_hooks if 'Monitor' in h.type).interval = 2
    return cfg


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The work dir of a finished training."""
    folder = tmp_path_factory.mktemp('byol') / 'run'
    mmmoco.train(load(), work_dir=str(folder), schedule='fit', seed=0)
    return folder


def test_loss_and_gradients_are_those_of_the_paper():
    """Twice 2 − 2 cos, the targets without a gradient."""
    model = mmmoco.get_model(load()).train()
    model.announce(*model.needs)
    a, b = torch.randn(2, 8, 1, 16, 16)

    def predicted(x):
        return model.predictor(model.neck(model.backbone(x)))[0]

    def target(x):
        with torch.no_grad():
            return model.key_encoder(x)[0]

    expected = sum(
        ((F.normalize(p) - F.normalize(t)) ** 2).sum(1).mean()
        for p, t in ((predicted(a), target(b)), (predicted(b), target(a)))
    )
    found = model.loss({'view_q': a, 'view_k': b}, torch.arange(8))
    torch.testing.assert_close(found['loss'], expected)
    learnt = [p for p in model.parameters() if p.requires_grad]
    for ours, theirs in zip(
        torch.autograd.grad(found['loss'], learnt),
        torch.autograd.grad(expected, learnt),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    names = {n.split('.')[0] for n, p in model.named_parameters()}
    assert names == {'backbone', 'neck', 'predictor', 'key_encoder'}
    assert not any(p.requires_grad for p in model.key_encoder.parameters())


def test_a_resumed_run_is_bit_equal(run, tmp_path):
    assert 'feature_std' in next(run.rglob('scalars.json')).read_text()
    first, last = (weights(run / f'epoch_{i}.pth') for i in (1, 2))
    mmmoco.train(
        load(),
        work_dir=str(tmp_path / 'run'),
        schedule='fit',
        resume=str(run / 'epoch_1.pth'),
    )
    again = weights(tmp_path / 'run' / 'epoch_2.pth')
    assert again.keys() == last.keys()
    for name, value in again.items():
        assert value.equal(last[name]), name
    moved = {n.split('.')[0] for n in last if not last[n].equal(first[n])}
    assert moved == {'backbone', 'neck', 'predictor', 'key_encoder'}


@pytest.mark.parametrize(
    ('encoder', 'prefix'), [('query', ''), ('key', 'key_encoder.')]
)
def test_its_backbone_is_exported(run, tmp_path, encoder, prefix):
    path = run / 'epoch_2.pth'
    found = mmmoco.export_backbone(
        str(path),
        str(tmp_path / 'out.pth'),
        to='mmpretrain',
        encoder=encoder,
    )
    own = weights(path)
    exported = weights(found.path)
    assert found.tensors == len(exported) > 0
    for name, value in exported.items():
        name = name.removeprefix('backbone.')
        assert value.equal(own[f'{prefix}backbone.{name}']), name


def test_it_is_taken_for_no_other_method(run, tmp_path):
    """By the names of its tensors it could be MoCo v3."""
    content = torch.load(run / 'epoch_2.pth', weights_only=False)
    assert content['meta']['method'] == 'BYOL'
    content['meta']['cfg'] = 'no config'
    torch.save(content, tmp_path / 'byol.pth')
    source, out = str(tmp_path / 'byol.pth'), str(tmp_path / 'in.pth')
    with pytest.raises(ValueError, match='BYOL.*--config'):
        mmmoco.import_checkpoint(source, out)
    report = mmmoco.import_checkpoint(source, out, config=load())
    assert report.model['type'] == 'BYOL'


def test_the_pre_flight_has_nothing_to_say():
    cfg = load()
    cfg.auto_scale_lr.base_batch_size = 16
    checks = mmmoco.verify_config(cfg).checks
    assert not [check for check in checks if check.verdict != 'ok']
    assert 'key encoder' in [check.name for check in checks]


def test_the_page_shows_these_lines():
    folder = Path(__file__).parent
    page = folder.parents[1] / 'docs' / 'add_a_method.md'
    blocks = page.read_text().split('```python\n')[1:]
    sources = [Path(CONFIG), folder / 'byol.py']
    code = ''.join(path.read_text() for path in sources)
    assert len(blocks) > 4
    assert all(block.partition('```')[0] in code for block in blocks)
