"""Groups of two processes meet: in the batch, in the queue, in training."""

import pytest

from .launching import launch

pytestmark = pytest.mark.dist

SCRIPT = """
import sys
import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from mmmoco.apis import load_config
from mmmoco.apis.training.runner import build_runner, init_processes
from mmmoco.engine.bare_model import bare_model
from mmmoco.functional import gather, info_nce, plain_info_nce
from mmmoco.models.dictionaries import InBatch, Queue

cfg = load_config('demo/mocov2_digits', {
    'model.dictionary.exclude': 'group',
    'model.dictionary.size': 96,
    'train_dataloader.batch_size': 8,
    'train_dataloader.dataset.num_scenes': 1500,
    'optim_wrapper.accumulative_counts': 2,
    'work_dir': sys.argv[1],
})
cfg.custom_hooks = [h for h in cfg.custom_hooks if h.type != 'KNNHook']
cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4)
cfg.param_scheduler = []
init_processes(cfg, 'pytorch')
rank, other = get_rank(), 1 - get_rank()

draws = torch.Generator().manual_seed(0)
both = F.normalize(torch.randn(2, 2, 6, 8, generator=draws), dim=-1)
groups = torch.randint(-1, 3, (2, 6), generator=draws)
q, k = both[rank]
for kind in (InBatch, Queue):
    made = InBatch(exclude='group') if kind is InBatch else Queue(
        12, 8, exclude='group')
    made.stage(k, torch.arange(6), slot=0, groups=groups[rank])
    made.commit()
    found = made.lookup(k, torch.arange(6), groups[rank])
    # Keys of rank 0 come before those of rank 1.
    every, keys = groups.flatten(), both[:, 1].flatten(0, 1)
    for i in range(6):
        mine = int(groups[rank, i])
        rest = [j for j in range(12) if mine < 0 or every[j] != mine]
        if kind is InBatch:
            rest = [j for j in rest if j != 6 * rank + i]
        logits = torch.stack([k[i], *keys[rest]]) @ q[i] / 0.2
        one = found.mask[i : i + 1]
        index = found.positive_index
        part = type(found)(
            found.keys,
            positives=None if index is not None else k[i : i + 1],
            positive_index=None if index is None else index[i : i + 1],
            mask=one,
        )
        for score in (info_nce, plain_info_nce):
            loss, _ = score(q[i : i + 1], part, 0.2)
            assert abs(loss + logits.log_softmax(0)[0]) < 1e-5, (kind, i)

seen = []
runner = build_runner(cfg)
step = runner.model.train_step
def noted(data, optim_wrapper):
    seen.append(data['groups'])
    return step(data, optim_wrapper)
runner.model.train_step = noted
runner.train()
queue = bare_model(runner).dictionary
expected = torch.cat([gather(x) for x in seen])
assert int(queue.ptr) == 64
assert torch.equal(queue.groups[:64], expected)
assert (queue.groups[64:] == -1).all()
assert torch.equal(gather(queue.groups[None])[other], queue.groups)
assert 'train/excluded' in runner.message_hub.log_scalars
print('done', rank)
"""


def test_groups_of_two_processes(tmp_path):
    """The digits' keys are shuffled for BatchNorm; their groups are not."""
    script = tmp_path / 'groups.py'
    script.write_text(SCRIPT)
    output = launch(script, tmp_path / 'run')
    assert 'done 0' in output and 'done 1' in output
    assert 'ShuffleBN over 2 processes' in output
