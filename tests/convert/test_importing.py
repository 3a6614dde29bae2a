"""Which layout it is, and that every tensor arrives under its new name."""

import pytest
import torch

from mmmoco.convert.flattened import flattened
from mmmoco.convert.formats import FORMATS
from mmmoco.convert.importing import count_by_module, import_weights, recognise
from mmmoco.engine.checkpoint_io import state_dict_of

from . import layouts


def weights_of(checkpoint):
    return state_dict_of(flattened(checkpoint))


@pytest.mark.parametrize('layout', layouts.ALL)
def test_recognised_and_complete(layout):
    make, name, counts = layouts.ALL[layout]
    source = weights_of(make())
    result = import_weights(source)
    assert result.format.name == name
    assert count_by_module(result.weights) == counts
    assert len(result.weights) + len(result.left) == len(source)
    # Every carried tensor is one of the source, bit by bit.
    kept = [v for k, v in source.items() if k not in result.left]
    for theirs, (ours, value) in zip(
        kept, result.weights.items(), strict=True
    ):
        if 'dictionary.' not in ours:
            assert value is theirs, ours


def test_every_format_is_tested():
    # mmpretrain's own models and ours are in test_import_checkpoint.py, what
    # export writes in test_exporting.py.
    elsewhere = {
        'mmmoco',
        'mmpretrain-moco',
        'mmpretrain-mocov3',
        'openmmlab',
        'mmpretrain-vit',
        'mmseg-vit',
        'detectron2',
        # In test_teachers.py.
        *('dinov2-registers', 'dinov3', 'dinov3-sat'),
        *('convnext', 'dinov3-convnext', 'hf-vit'),
    }
    tested = {name for _, name, _ in layouts.ALL.values()}
    assert tested | elsewhere == set(FORMATS)


def test_names_of_heads_and_keys():
    result = import_weights(weights_of(layouts.mocov3('vit')[0])).weights
    assert {
        'neck.fc0.weight',
        'neck.bn1.running_var',
        'neck.fc2.weight',
        'neck.bn2.num_batches_tracked',
        'predictor.bn1.running_mean',
        'key_encoder.backbone.layers.1.ffn.layers.0.0.bias',
        'key_encoder.neck.bn0.weight',
        'backbone.ln1.bias',
    } <= result.keys()
    source = layouts.mocov3('vit')[0]['state_dict']
    assert torch.equal(
        result['neck.fc2.weight'], source['module.base_encoder.head.6.weight']
    )


def test_the_query_of_lightlys_benchmark_is_not_called_backbone():
    source = weights_of(layouts.lightly_benchmark())
    result = import_weights(source).weights
    for ours, theirs in (
        ('backbone.', 'query_backbone.'),
        ('key_encoder.backbone.', 'backbone.'),
    ):
        assert torch.equal(
            result[f'{ours}conv1.weight'], source[f'{theirs}conv1.weight']
        )


def test_queues_get_our_shape():
    rows = weights_of(layouts.lightly_benchmark())
    result = import_weights(rows).weights
    bank = rows['criterion.memory_bank.bank']  # K×C there
    assert torch.equal(result['dictionary.keys'], bank.T)
    assert result['dictionary.ptr'].tolist() == [4]

    two = weights_of(layouts.solo_learn())
    imported = import_weights(two)
    assert torch.equal(imported.weights['dictionary.keys'], two['queue'][1])
    assert '2 queues; the keys of number 2' in imported.notes[0]

    two['queue'] = torch.zeros(3, 5)
    with pytest.raises(ValueError, match=r'\(3, 5\).*C=128'):
        import_weights(two)


def test_dinos_teacher_is_taken():
    checkpoint = layouts.dino()
    result = import_weights(weights_of(checkpoint)).weights
    teacher = checkpoint['teacher']['backbone.blocks.0.attn.qkv.weight']
    assert torch.equal(result['backbone.layers.0.attn.qkv.weight'], teacher)


def test_unknown_layout_lists_what_was_seen():
    with pytest.raises(ValueError, match='fit no layout') as error:
        recognise(['net.stem.weight', 'net.stem.bias', 'fc.weight'])
    assert 'net.stem (2), fc.weight (1)' in str(error.value)
    assert '--from' in str(error.value)


def test_ambiguous_layout_asks():
    source = weights_of(layouts.moco(2)[0])
    source |= layouts.put('proj_q.', layouts.two_linear(512))
    with pytest.raises(ValueError, match='several layouts') as error:
        import_weights(source)
    assert 'moco (' in str(error.value) and 'encoder-proj (' in str(
        error.value
    )
    with pytest.raises(ValueError, match=r'proj_q\.0\.weight.*--drop'):
        import_weights(source, 'moco')
    forced = import_weights(source, 'moco', drop=['proj_q.*'])
    assert len(forced.weights) == 250
    assert set(forced.left.values()) == {'dropped as asked'}
    with pytest.raises(ValueError, match='no such layout'):
        import_weights(source, 'mocov4')


def test_no_key_is_lost_in_silence():
    source = weights_of(layouts.moco(2)[0])
    source['encoder_q.layer9.extra'] = torch.ones(1)
    with pytest.raises(ValueError, match=r'1 keys.*layer9\.extra'):
        import_weights(source)


def test_registers_of_an_unknown_transformer_are_refused():
    source = layouts.vit().state_dict()
    source['register_tokens'] = torch.zeros(1, 4, 192)
    with pytest.raises(ValueError, match=r'no layout.*register_tokens'):
        import_weights(source)
