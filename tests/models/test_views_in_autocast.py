"""Views do not depend on the precision that the network computes in.

mmengine calls the preprocessor inside the autocast of the model.
"""

import inspect

import pytest
import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from mmmoco.apis import load_config
from mmmoco.models.preprocessors import BatchView, ViewAugmentor
from mmmoco.models.preprocessors import batch_photometric as photometric
from mmmoco.registry import BATCH_AUGMENTS, MODELS

from ..conftest import since_torch

CROP = dict(type='BatchRandomResizedCrop', size=16)
ARGUMENTS = {'BatchRandomResizedCrop': dict(size=12)}
VIEWS = sorted(
    name
    for name, kind in BATCH_AUGMENTS.module_dict.items()
    if inspect.isclass(kind) and issubclass(kind, BatchView)
)
CONFIGS = [
    'mocov2_r50_8xb32',
    'mocov2_r50_8xb32_satellite',
    'mocov3_vit-s_8xb128_300e',
    'mmc_vit-b_4xb64_400e',
    'mocov2_r18_1xb512_cifar10',
]


def of_ops(*ops):
    return ViewAugmentor(
        mean=(128,) * 3,
        std=(64,) * 3,
        views={'view_q': dict(source='image', ops=list(ops))},
    )


def of_config(name):
    cfg = load_config(name, {'device_views': True})
    return MODELS.build(cfg.model.data_preprocessor)


def batch_for(made, n=8, side=32, **options):
    names = {source for source, _ in made.views.values()}
    names |= set(getattr(made, 'corrupted_views', ()))
    draws = torch.Generator().manual_seed(0)
    channels = made.mean.shape[1]
    image = torch.randint(
        0, 256, (n, channels, side, side), dtype=torch.uint8, generator=draws
    )
    inputs = {name: image.to(**options) for name in sorted(names)}
    return {'inputs': inputs, 'ids': torch.arange(n)}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert torch.equal(a[name], b[name]), name


def make(made, training=True):
    made.set_address(seed=0, step=1, rank=0)
    return made(batch_for(made), training)['inputs']


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    'made',
    [
        *(pytest.param(lambda n=n: of_config(n), id=n) for n in CONFIGS),
        *(
            pytest.param(
                lambda n=n: of_ops(dict(type=n, **ARGUMENTS.get(n, {}))), id=n
            )
            for n in VIEWS
        ),
    ],
)
@pytest.mark.parametrize(
    'dtype',
    [
        torch.bfloat16,
        pytest.param(torch.float16, marks=since_torch('2.3')),
    ],
)
def test_views_are_the_same_inside_and_outside(made, training, dtype):
    made = made()
    expected = make(made, training)
    assert all(
        x.dtype == (torch.bool if name.endswith('_mask') else torch.float32)
        for name, x in expected.items()
    )
    with torch.autocast('cpu', dtype=dtype):
        same(make(made, training), expected)


def test_no_preprocessor_can_leave_it_out():
    """Subclasses extend make(), which runs without autocast."""
    kinds = {
        kind
        for kind in MODELS.module_dict.values()
        if inspect.isclass(kind) and issubclass(kind, ViewAugmentor)
    }
    assert len(kinds) > 1
    assert {kind.forward for kind in kinds} == {ViewAugmentor.forward}


class Watch(TorchFunctionMode):
    """Notes the operations that a CUDA autocast would change."""

    def __init__(self):
        super().__init__()
        self.changed, self.copies = [], 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, '__name__', '')
        if torch.is_autocast_enabled('cuda'):
            self.changed.append(name)
        if name == 'index_copy_':
            # What CUDA refuses, and shapes alone do not show.
            self.copies += 1
            assert args[0].dtype == args[3].dtype, (args[0], args[3])
        return func(*args, **(kwargs or {}))


@pytest.fixture
def cuda_autocast():
    """CUDA's autocast, which torch.autocast leaves off without a GPU."""
    torch.set_autocast_enabled('cuda', True)
    torch.set_autocast_dtype('cuda', torch.bfloat16)
    yield
    torch.set_autocast_enabled('cuda', False)


@since_torch('2.7')
@pytest.mark.parametrize(
    'name', ['mocov2_r50_8xb32', 'mocov3_vit-s_8xb128_300e']
)
def test_tensors_of_a_gpu_meet_no_autocast(name, monkeypatch, cuda_autocast):
    """Tensors without values, of a CUDA device, under CUDA's own rules."""
    made = of_config(name)

    def on_the_host(kind, method):
        plain = getattr(kind, method)

        def without_fake(*args, **kwargs):
            with fake_tensor.unset_fake_temporarily():
                return plain(*args, **kwargs)

        monkeypatch.setattr(kind, method, without_fake)

    for _, ops in made.views.values():
        for kind in {type(op) for op in ops}:
            on_the_host(kind, 'draw')
            on_the_host(kind, 'prepare')
    # Pinning memory needs a driver.
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self: self)
    watch = Watch()
    with FakeTensorMode(allow_non_fake_inputs=True):
        made = made.to('cuda')
        data = batch_for(made, device='cuda')
        assert torch.is_autocast_enabled('cuda')
        with watch:
            views = made(data, True)['inputs']
    assert watch.copies > 5
    # Entering and leaving the region without autocast is all that sees it.
    assert set(watch.changed) <= {'', '__get__'}, set(watch.changed)
    for x in views.values():
        assert x.device.type == 'cuda' and x.dtype == torch.float32


def test_what_changes_some_samples_changes_no_other():
    x = torch.rand(9, 3, 4, 4)
    for chosen in (0, 1, 4, 9):
        at = torch.arange(chosen)
        own = x.clone()
        y = photometric.change_some(own, at, lambda part: part + 1)
        assert torch.equal(y[:chosen], x[:chosen] + 1)
        assert torch.equal(y[chosen:], x[chosen:])
        assert chosen == 9 or y.data_ptr() == own.data_ptr()


def test_operations_follow_one_that_acts_on_all():
    """Its result, such as one grey channel three times, can be overwritten."""
    every = [
        dict(type=name, **ARGUMENTS.get(name, {}))
        for name in VIEWS
        if name != 'BatchRandomResizedCrop'
    ]
    for first in every:
        kind = BATCH_AUGMENTS.get(first['type'])
        if 'prob' in inspect.signature(kind).parameters:
            first = first | dict(prob=1.0)
        views = make(of_ops(CROP, first, *every))
        assert torch.isfinite(views['view_q']).all()
