import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmmoco.functional import send, shuffle_plan

from ..conftest import since_torch

DTYPES = (torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64,
          torch.bfloat16)  # fmt: skip


class AsMeta(TorchDispatchMode):
    """Lets what is copied to the meta device keep its values, on the host."""

    copies = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if str(kwargs.get('device')) == 'meta':
            self.copies += 1
            kwargs['device'] = 'cpu'
            return func(args[0].clone(), *args[1:], **kwargs)
        return func(*args, **kwargs)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)
        ),
        max_size=8,
    )
)
def test_everything_arrives_as_it_left(kinds):
    draws = torch.Generator().manual_seed(0)
    values = {
        i: (10 * torch.randn(shape, generator=draws)).to(dtype)
        for i, (dtype, shape) in enumerate(kinds)
    }
    values |= {'seed': 3, 'none': None}
    if 1 in values and values[1].dim() == 2:
        values[1] = values[1].T  # not contiguous
    with AsMeta() as there:
        result = send(values, 'meta')
    assert there.copies == bool(kinds)
    assert list(result) == list(values)
    assert result['seed'] == 3 and result['none'] is None
    for name, x in values.items():
        if isinstance(x, torch.Tensor):
            assert result[name].dtype == x.dtype
            assert result[name].shape == x.shape
            assert torch.equal(result[name], x)


def test_on_the_host_nothing_is_copied():
    x = torch.ones(3)
    assert send({'x': x}, 'cpu')['x'] is x


@since_torch('2.7')
def test_a_gpu_is_not_waited_for(monkeypatch):
    pinned = []
    monkeypatch.setattr(
        torch.Tensor, 'pin_memory', lambda x: pinned.append(x) or x
    )
    with FakeTensorMode():
        values = {'a': torch.ones(3), 'b': torch.ones(2, dtype=torch.bool)}
        result = send(values, 'cuda')
    assert len(pinned) == 1
    assert {x.device.type for x in result.values()} == {'cuda'}


def test_a_plan_is_one_copy():
    with AsMeta() as there:
        plan = shuffle_plan(6, seed=0, step=1, device=torch.device('meta'))
    assert there.copies == 1
    assert sorted(plan.take.tolist()) == list(range(6))
