"""However the names in a file are mangled: whole, or an error.

What must never happen is an import that lacks tensors and does not say so.
"""

import functools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmmoco.apis.exchange.import_checkpoint import check_imported, model_of
from mmmoco.convert.flattened import WRAPPERS, flattened
from mmmoco.convert.importing import count_by_module, import_weights
from mmmoco.engine.checkpoint_io import CheckpointError, state_dict_of

from . import layouts

#: One of each family, the smaller network where there are two.
KINDS = [
    'moco v2',
    'mocov3 vit',
    'mmselfsup 0.x',
    'seco',
    'seed, with BatchNorm and keys',
    'lightly',
    'lightly benchmark',
    'solo-learn v2+',
    'dino',
    'dino resnet',
    'timm vit',
    'torchvision resnet',
]


@functools.cache
def source_of(kind):
    """The tensors of a layout by their names in the file, and the import."""
    make, _, counts = layouts.ALL[kind]
    weights = dict(state_dict_of(flattened(make())))
    return weights, import_weights(weights), counts


def outcome(names, weights):
    """Import a file with these names; None where it is refused."""
    state = dict(zip(names, weights, strict=True))
    assert len(state) == len(weights)
    try:
        found = import_weights(state_dict_of(flattened({'state_dict': state})))
        absent = check_imported(found, model_of(found))
    except (ValueError, CheckpointError):
        return None
    return found, absent


def whole(found, absent, counts):
    """Every module is there with all of its tensors, or named as absent."""
    present = count_by_module(found.weights)
    # Which is which may have changed; a backbone stays a backbone.
    assert present['backbone'] == counts['backbone']
    for module, count in present.items():
        if module in counts:
            assert count == counts[module], module
    assert set(counts) - set(present) <= set(absent)


@pytest.mark.slow
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_marks_of_wrappers_change_nothing(data):
    kind = data.draw(st.sampled_from(KINDS))
    weights, expected, _ = source_of(kind)
    wrapper = st.sampled_from(sorted(WRAPPERS))
    depth = data.draw(st.integers(0, 3))
    mark = '.'.join(data.draw(st.lists(wrapper, min_size=1, max_size=2)))
    front = data.draw(st.sampled_from(['', 'module.', 'module.module.']))

    def mangled(name):
        parts = name.split('.')
        place = min(depth, len(parts) - 1)
        return front + '.'.join([*parts[:place], mark, *parts[place:]])

    names = [mangled(name) for name in weights]
    state = dict(zip(names, weights.values(), strict=True))
    found = import_weights(state_dict_of(flattened({'state_dict': state})))
    assert found.format == expected.format
    assert found.weights.keys() == expected.weights.keys()
    for name, value in found.weights.items():
        theirs = expected.weights[name]
        if 'dictionary.' in name:
            assert torch.equal(value, theirs), name
        else:
            assert value is theirs, name
    assert set(found.left) == set(expected.left)


@pytest.mark.slow
@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_prefixes_that_are_exchanged_or_added(data):
    """Of all keys, or of some: no tensor is lost in silence."""
    kind = data.draw(st.sampled_from(KINDS))
    weights, expected, counts = source_of(kind)
    tops = list(dict.fromkeys(name.split('.')[0] for name in weights))
    exchanged = dict(zip(tops, data.draw(st.permutations(tops)), strict=True))
    added = data.draw(
        st.sampled_from(
            ['', 'model.', 'net.', 'backbone.', 'encoder_q.', 'teacher.']
        )
    )
    share = data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    draws = data.draw(st.randoms(use_true_random=False))
    dropped = data.draw(st.sampled_from([0.0, 0.0, 0.05]))
    names, values = [], []
    for name, value in weights.items():
        if draws.random() < dropped:
            continue
        top, dot, rest = name.partition('.')
        name = exchanged[top] + dot + rest
        if draws.random() < share:
            name = added + name
        if name not in names:
            names.append(name)
            values.append(value)
    result = outcome(names, values)
    if result is None:
        return
    found, absent = result
    whole(found, absent, counts)
    # Nothing was called useless that a whole import would have carried.
    theirs = {id(v) for v in expected.weights.values()}
    carried = {id(v) for v in found.weights.values()}
    by_name = dict(zip(names, values, strict=True))
    lost = [n for n in found.left if id(by_name[n]) in theirs - carried]
    duplicates = {n for n in lost if 'once more' in found.left[n]}
    other = {n for n in lost if n not in duplicates}
    assert not other or whole_networks(other, by_name, counts), other


def whole_networks(names, by_name, counts):
    """Left as a whole: the student of a teacher, the query of a key."""
    return len(names) >= counts['backbone']


@pytest.mark.parametrize('inside', [True, False])
@pytest.mark.parametrize('kind', ['moco v2', 'mocov3 vit', 'seco'])
def test_a_compiled_model_is_read(kind, inside):
    make, name, counts = layouts.ALL[kind]
    plain = make()
    plain['state_dict'] = dict(state_dict_of(plain))
    source = layouts.compiled(plain, inside)
    found = import_weights(state_dict_of(flattened(source)))
    assert found.format.name == name
    assert count_by_module(found.weights) == counts


def test_a_network_that_is_there_wrapped_and_bare_is_refused():
    state = dict(state_dict_of(flattened(layouts.moco(2)[0])))
    state['_orig_mod.queue'] = state['queue'] + 1
    with pytest.raises(ValueError, match=r'queue and _orig_mod\.queue'):
        flattened({'state_dict': state})


def test_a_duplicate_that_differs_is_refused():
    state = dict(state_dict_of(flattened(layouts.mmselfsup_0x())))
    state['backbone.conv1.weight'] = state['backbone.conv1.weight'] + 1
    with pytest.raises(ValueError, match=r'backbone\.conv1\.weight.*twice'):
        import_weights(state)
    dropped = import_weights(state, drop=['backbone.*'])
    assert 'backbone.conv1.weight' in dropped.weights
