"""Every place that loads weights, with every kind of file that does not fit.

One function decides: it is refused in one line with the numbers, or what
stays as it was is said.
"""

import copy
import logging

import pytest
import torch

from mmmoco.apis import get_model
from mmmoco.apis.dense.features import load_model
from mmmoco.apis.probing.extract_features import Encoder
from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.checkpoint_io import CheckpointError, Fit, layouts
from mmmoco.engine.pretrained import initialize
from mmmoco.engine.without_memory import check_complete
from mmmoco.registry import MODELS


def below_another_name(weights):
    return {f'student.{name}': value for name, value in weights.items()}


def official(weights):
    """The layout of facebookresearch/moco: another network altogether."""
    names = ('conv1.weight', 'layer1.0.conv1.weight', 'fc.weight')
    return {
        f'module.encoder_{side}.{name}': torch.ones(2)
        for side in 'qk'
        for name in names
    } | {'module.queue': torch.ones(4, 8)}


def without_half(weights):
    names = [name for name in weights if name.startswith('backbone.')]
    return {k: v for k, v in weights.items() if k not in names[::2]}


def without_one(weights):
    name = 'backbone.stages.1.conv.weight'
    return {k: v for k, v in weights.items() if k != name}


def of_another_width(weights):
    name = 'backbone.stages.1.conv.weight'
    return {**weights, name: torch.zeros(9, 4, 3, 3)}


def deeper(weights):
    """All names are another stage's."""
    return {
        name.replace('stages.', 'stages.7'): value
        for name, value in weights.items()
    }


MISFITS = {
    below_another_name: 'student',
    official: r'layout of official MoCo v1 or v2: run mmmoco import',
    without_half: 'missing in the file',
    without_one: r'1 missing in the file: (backbone\.)?stages\.1\.conv\.w',
    of_another_width: r'1 of another shape: .*stages\.1\.conv\.weight \(9',
    deeper: r'0 of \d+|[12]0 missing in the file: backbone\.stages\.0',
}


def start_from(cfg, path, runner_of):
    cfg.load_from = path
    runner_of(cfg).train()


def start_at(cfg, path, runner_of, prefix='backbone.'):
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=path, prefix=prefix
    )
    runner_of(cfg).train()


def build_from_init_cfg(cfg, path, runner_of):
    init = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    cfg.model.backbone.init_cfg = init
    get_model(cfg)


def build(cfg, path, runner_of):
    get_model(cfg, path)


def dense(cfg, path, runner_of):
    load_model(cfg, path)


def encoder(cfg, path, runner_of):
    Encoder(cfg, path, 'gap')


def exporting(cfg, path, runner_of):
    weights = checkpoint_io.read_weights(path)
    check_complete(weights, cfg.model.to_dict(), source=path)


PLACES = (
    start_from,
    start_at,
    build_from_init_cfg,
    build,
    dense,
    encoder,
    exporting,
)


@pytest.fixture
def weights(small_config):
    return dict(get_model(small_config()).state_dict())


@pytest.mark.parametrize(
    'place',
    [
        # These build a run for every misfit.
        pytest.param(
            place,
            marks=[pytest.mark.slow] * (place in (start_from, start_at)),
        )
        for place in PLACES
    ],
    ids=lambda f: f.__name__,
)
def test_what_does_not_fit_is_refused_everywhere(
    place, small_config, runner_of, weights, tmp_path
):
    path = str(tmp_path / 'weights.pth')
    for misfit, message in MISFITS.items():
        torch.save({'state_dict': misfit(weights)}, path)
        with pytest.raises(CheckpointError, match=message) as error:
            place(small_config(), path, runner_of)
        line = str(error.value)
        assert 'weights.pth' in line and '\n' not in line, line
        assert ' tensors fit' in line or 'holds nothing below' in line, line
    torch.save({'state_dict': weights}, path)
    place(small_config(**{'train_cfg.max_epochs': 1}), path, runner_of)


def log_of(runner):
    for handler in runner.logger.handlers:
        handler.flush()
    [path] = [
        handler.baseFilename
        for handler in runner.logger.handlers
        if isinstance(handler, logging.FileHandler)
    ]
    with open(path) as file:
        return file.read()


def test_partial_names_what_stays(small_config, runner_of, weights, tmp_path):
    path = str(tmp_path / 'weights.pth')
    torch.save({'state_dict': without_one(weights)}, path)
    cfg = small_config(allow_partial=True, load_from=path)
    cfg.optim_wrapper.optimizer.lr = 0.0
    runner = runner_of(cfg)
    runner.train()
    log = log_of(runner)
    assert 'as initialised stay backbone (1) (backbone.stages.1.conv.w' in log
    state = bare_model(runner).state_dict()
    name = 'backbone.stages.0.conv.weight'
    assert torch.equal(state[name], weights[name])
    # Nothing at all is no part.
    torch.save({'state_dict': official(weights)}, path)
    with pytest.raises(CheckpointError, match='0 of 10 backbone tensors fit'):
        runner_of(cfg).train()


def test_partial_init_cfg(small_config, runner_of, weights, tmp_path):
    path = str(tmp_path / 'weights.pth')
    torch.save({'state_dict': without_one(weights)}, path)
    cfg = small_config(allow_partial=True)
    init = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    cfg.model.backbone.init_cfg = init
    runner = runner_of(cfg)
    runner.train()
    log = log_of(runner)
    assert f'model.backbone from {path}: 9 of 10 tensors fit' in log


@pytest.mark.parametrize(
    ('prefix', 'message'),
    [
        (None, "below prefix='backbone.'"),
        ('student.', r"nothing below prefix='student\.'.*begin with backbone"),
        ('key_encoder.', "below prefix='backbone.'"),
        ('neck.', '0 of 10 tensors fit'),
    ],
)
def test_the_right_prefix_is_proposed(
    prefix, message, small_config, runner_of, weights, tmp_path
):
    path = str(tmp_path / 'weights.pth')
    torch.save({'state_dict': weights}, path)
    with pytest.raises(CheckpointError, match=message):
        start_at(small_config(), path, runner_of, prefix)


def test_whole_parts_may_be_absent_from_what_a_run_starts_with(
    small_config, runner_of, weights, tmp_path, monkeypatch
):
    """An imported file has a backbone, and perhaps a neck.

    It is read as a whole once, although it does not tell its architecture.
    """
    whole, load = [], layouts.load
    monkeypatch.setattr(
        layouts,
        'load',
        lambda *given: (whole.append(given[2:]), load(*given))[1],
    )
    path = str(tmp_path / 'weights.pth')
    part = {k: v for k, v in weights.items() if k.startswith('backbone.')}
    torch.save({'state_dict': part | {'fc.bias': torch.ones(3)}}, path)
    runner = runner_of(small_config(load_from=path))
    runner.train()
    log = log_of(runner)
    assert 'as initialised stay neck (' in log
    assert 'not used are fc (1)' in log
    assert [only for only in whole if only != ('meta',)] == [(None,)]
    # But not half of one.
    half = part | {'neck.mlp.0.weight': weights['neck.mlp.0.weight']}
    torch.save({'state_dict': half}, path)
    with pytest.raises(CheckpointError, match=r'backbone, neck tensors fit'):
        runner_of(small_config(load_from=path)).train()


def test_a_resized_position_fits_and_a_wrong_one_does_not():
    """The module itself says what it makes of a file."""
    arch = dict(
        embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=16
    )
    backbone = dict(
        type='mmpretrain.VisionTransformer',
        arch=arch,
        img_size=32,
        patch_size=8,
    )
    small = MODELS.build(backbone)
    large = MODELS.build({**backbone, 'img_size': 64})
    fit = checkpoint_io.load_into(large, small.state_dict())
    assert not fit.stays() and not fit.reshaped
    wrong = dict(small.state_dict(), cls_token=torch.zeros(1, 1, 9))
    with pytest.raises(CheckpointError, match=r'cls_token \(1, 1, 9\) for'):
        checkpoint_io.load_into(large, wrong)


def test_a_part_that_nothing_was_loaded_into_is_said(
    small_config, weights, tmp_path, monkeypatch
):
    path = str(tmp_path / 'weights.pth')
    torch.save({'state_dict': weights}, path)
    said = []
    monkeypatch.setattr('mmmoco.engine.pretrained.log_warning', said.append)
    cfg = small_config()
    init = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    cfg.model.backbone.init_cfg = init
    model = get_model(cfg)
    assert not said
    initialize(model.backbone)  # Once more: OpenMMLab does it once only.
    assert said == [
        f'model.init_cfg names {path}, but nothing was loaded from it.'
    ]


def test_names_and_shapes_are_counted_alike_with_and_without_loading(weights):
    """`Fit.of` and a load say the same, whatever is done to the names."""
    draws = torch.Generator().manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    )
    own = module.state_dict()
    for _ in range(200):
        theirs = {}
        for name, value in own.items():
            kind = int(torch.randint(4, (1,), generator=draws))
            if kind == 0:
                theirs[name] = value
            elif kind == 1:
                theirs[f'other.{name}'] = value
            elif kind == 2:
                theirs[name] = torch.zeros(7, *value.shape)
        loaded = []
        try:
            fit = checkpoint_io.load_into(
                copy.deepcopy(module), theirs, allow_extra=('*',), partial=True
            )
            loaded.append(fit)
        except CheckpointError as error:
            assert ': 0 of ' in str(error)
        told = Fit.of(own, theirs)
        for fit in loaded:
            fit.reshaped.pop('1.num_batches_tracked', None)
            assert sorted(fit.missing) == sorted(told.missing)
            assert fit.reshaped == told.reshaped
            assert sorted(fit.extra) == sorted(told.extra)
            assert fit.counts() == told.counts()


def test_an_evaluation_needs_no_queue_of_the_same_size(small_config, tmp_path):
    """Nor a key encoder; backbone and neck it does."""
    path = str(tmp_path / 'weights.pth')
    state = dict(get_model(small_config()).state_dict())
    torch.save({'state_dict': state}, path)
    size = state['dictionary.keys'].shape[1]
    other = small_config(**{'model.dictionary.size': 2 * size})
    loaded = get_model(other, path).state_dict()
    for name, value in state.items():
        if not name.startswith('dictionary.'):
            assert torch.equal(loaded[name], value), name
    torch.save(
        {'state_dict': {k: v for k, v in state.items() if 'neck' not in k}},
        path,
    )
    with pytest.raises(CheckpointError, match='missing in the file: neck'):
        get_model(small_config(), path)
