"""Hard negatives: whom they are made of, and when; golden has the formula."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmmoco.apis.preflight.memory_estimate import estimate_memory
from mmmoco.engine.bare_model import bare_model
from mmmoco.functional import Candidates, chunked_look_up
from mmmoco.models.losses import InfoNCE
from mmmoco.registry import MODELS

HARD = dict(type='HardNegatives', n=4, s=16, s2=3, start_epoch=0)


def unit(*shape, dim):
    return F.normalize(torch.randn(*shape), dim=dim)


def info_nce(**options):
    loss = InfoNCE(0.2, hard_negatives={**HARD, **options})
    loss.set_address(seed=0, step=0, epoch=0)
    return loss


@pytest.mark.parametrize('pairs', [8, 10**6])
@pytest.mark.parametrize('kind', ['beside', 'among'])
def test_what_is_no_negative_is_never_mixed(monkeypatch, pairs, kind):
    """Hidden keys are the hardest, and change nothing wherever they are.

    A query has fewer negatives than n, or none: then the loss is that of
    fewer mixtures, or of none.
    """
    monkeypatch.setitem(chunked_look_up.PAIRS_AT_A_TIME, 'cpu', pairs)
    torch.manual_seed(0)
    q, keys = unit(8, 16, dim=1), unit(16, 20, dim=0)
    mask = torch.rand(8, 20) < torch.linspace(0, 0.9, 8)[:, None]
    mask[-1] = True
    place = dict(positives=unit(8, 16, dim=1))
    if kind == 'among':
        place = dict(positive_index=torch.arange(8))
    for i in range(8):
        own = {name: x[i : i + 1] for name, x in place.items()}

        def score(changed):
            found = Candidates(keys=changed, mask=mask[i : i + 1], **own)
            return info_nce()(q[i : i + 1], found)

        loss, stats = score(keys)
        assert loss.isfinite() and (i < 7 or stats.hard_similarity == 0)
        hidden = mask[i].clone()
        if kind == 'among':
            hidden[i] = False  # Counted, as the positive.
        loss_of_others, _ = score(torch.where(hidden, q[i][:, None], keys))
        torch.testing.assert_close(loss, loss_of_others)
        if i == 7:
            plain, _ = InfoNCE(0.2)(
                q[i : i + 1],
                Candidates(keys=keys, mask=mask[i : i + 1], **own),
            )
            torch.testing.assert_close(loss, plain)


def test_the_same_address_gives_the_same_and_off_gives_nothing():
    torch.manual_seed(0)
    q, k, keys = unit(3, 8, dim=1), unit(3, 8, dim=1), unit(8, 12, dim=0)
    candidates = Candidates(keys=keys, positives=k)
    score = info_nce()
    (loss, stats), (second, _) = (score(q, candidates) for _ in range(2))
    assert loss == info_nce()(q, candidates)[0]
    assert loss != second  # Of the same step, as with two views.
    off, its_stats = InfoNCE(0.2)(q, candidates)
    assert off < loss
    assert stats.hard_similarity > stats.negative_similarity
    assert its_stats.hard_similarity is None


@pytest.mark.parametrize(
    'wrong', [dict(n=0), dict(s=-1), dict(s=0, s2=0), dict(start_epoch=-1)]
)
def test_numbers_out_of_range_are_named(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f'{name}={value}'):
        MODELS.build({**HARD, **wrong})


def lines_of(runner):
    folder = Path(runner.log_dir)
    text = next(folder.glob('*.log')).read_text()
    scalars = folder / 'vis_data' / 'scalars.json'
    rows = map(json.loads, scalars.read_text().splitlines())
    return text, [row for row in rows if 'loss' in row]


def test_a_run_begins_later_and_resumes_bit_equal(small_config, runner_of):
    hard = {**HARD, 'n': 80, 'start_epoch': 1}
    options = {
        'model.loss.hard_negatives': hard,
        'train_cfg.max_epochs': 2,
        'optim_wrapper.accumulative_counts': 2,
        'default_hooks.checkpoint.interval': 6,
        'default_hooks.checkpoint.by_epoch': False,
    }
    whole = runner_of(small_config(**options))
    whole.train()
    text, rows = lines_of(whole)
    assert text.count('none in the first 1 epochs') == 1
    assert text.count('from iteration 5 (epoch 2) on, 16 mixtures') == 1
    assert text.count('n=80), but there are only 64 keys') == 1
    assert ['hard_sim' in row for row in rows] == [False] * 4 + [True] * 4

    cfg = small_config(**options)
    cfg.load_from = str(Path(cfg.work_dir) / 'iter_6.pth')
    cfg.resume = True
    resumed = runner_of(cfg)
    resumed.train()
    assert 'from iteration 7 (epoch 2) on' in lines_of(resumed)[0]
    for name, value in bare_model(resumed).state_dict().items():
        assert value.equal(bare_model(whole).state_dict()[name]), name


def test_the_memory_of_mixtures_is_counted(small_config):
    """As in the run's later part, where they are on."""
    cfg = small_config()
    hard = {**HARD, 's': 4096, 's2': 0, 'start_epoch': 10}
    cfg.model.loss.hard_negatives = hard
    found = estimate_memory(cfg, batch_size=512)
    assert found.method == 'fake tensors'
    assert found.peaks['forward'] > 3 * 512 * 4096 * 4  # the draws alone
