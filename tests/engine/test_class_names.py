"""Labels of two data sets: perfect features must give perfect figures."""

import pytest
import torch

from mmmoco.engine.class_names import Matching, match, match_names
from mmmoco.engine.evaluation import build_evaluation
from mmmoco.evaluation.classification import classification_metrics
from mmmoco.evaluation.linear_probe import ProbeSettings, linear_probe
from mmmoco.evaluation.svm import svm_map

from .colour_folders import Pixels, draw_class, figures, loader, splits_of

NAMES = [f'{word}{i}' for i in range(4) for word in ('ape', 'Bee', '10', '2_')]


@pytest.mark.parametrize('seed', range(6))
def test_any_classes_missing_among_the_queries(tmp_path, seed):
    """Whatever folders a side lacks, each colour is found again."""
    draws = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(NAMES), generator=draws)
    names = [NAMES[i] for i in order[:6]]
    kept = [names[i] for i in torch.randperm(6, generator=draws)[: 1 + seed]]
    for number, name in enumerate(names):
        draw_class(tmp_path / 'bank' / name, number, 6, seed=0)
        if name in kept:
            draw_class(tmp_path / 'query' / name, number, 4, seed=1)
    splits = splits_of(loader(tmp_path / 'bank'), loader(tmp_path / 'query'))
    metrics = figures(splits)[3]
    assert metrics == {'top1': 100.0, 'top5': 100.0}
    bank, query = splits.extract(Pixels())
    settings = ProbeSettings(lrs=(0.1,), weight_decays=(0.0,), epochs=20)
    assert linear_probe(bank, query, settings).metrics['top1'] == 100.0
    if len(kept) > 1:  # An SVM needs images without its class.
        assert svm_map(bank, query, shots=(), costs=(1.0,)).whole > 99.9
    assert ('lacks' in splits.remarks['classes']) == (len(kept) < 6)
    assert all(
        repr(name) in splits.remarks['classes']
        for name in set(names) - set(kept)
    )


def test_labels_of_folders_without_names_are_wrong(tmp_path):
    """The fault itself: by number, a missing folder shifts all others."""
    for number, name in enumerate('abc'):
        draw_class(tmp_path / 'bank' / name, number, 6, seed=0)
        if name != 'a':
            draw_class(tmp_path / 'query' / name, number, 4, seed=1)
    splits = splits_of(loader(tmp_path / 'bank'), loader(tmp_path / 'query'))
    splits.__dict__['matching'] = Matching(None, 0, False, '')
    assert figures(splits)[3]['top1'] == 0.0


def test_an_unknown_class_is_an_error_before_anything_runs(tmp_path):
    draw_class(tmp_path / 'bank/cat', 0, 4, seed=0)
    draw_class(tmp_path / 'query/cat', 0, 4, seed=1)
    draw_class(tmp_path / 'query/dog', 1, 4, seed=1)
    settings = {
        name: dict(
            batch_size=4,
            sampler=dict(type='mmmoco.AddressedSampler', shuffle=False),
            dataset=dict(
                type='mmmoco.ImageFolderDataset',
                data_root=str(tmp_path / name),
                with_labels=True,
            ),
        )
        for name in ('bank', 'query')
    }
    with pytest.raises(ValueError, match=r"query has 1 class .* 'dog'"):
        build_evaluation('KNN', {**settings, 'k': 2}, seed=0)
    settings['query']['dataset']['data_root'] = str(tmp_path / 'none')
    with pytest.raises(FileNotFoundError) as raised:
        build_evaluation('KNN', {**settings, 'k': 2}, seed=0)
    assert 'knn.query.dataset.data_root=' in str(raised.value)
    assert 'train_dataloader.dataset' not in str(raised.value)


def test_lists_count_by_number_and_say_how_many(tmp_path):
    for number, name in enumerate('ab'):
        draw_class(tmp_path / name, number, 4, seed=0)
    rows = [f'{c}/{i}.png' for c in 'ab' for i in range(4)]
    bank = [f'{row} {"ab".index(row[0])}' for row in rows]
    (tmp_path / 'bank.txt').write_text('\n'.join(bank))
    (tmp_path / 'query.txt').write_text('\n'.join([*bank[::3], 'a/0.png 5']))
    splits = splits_of(
        loader(tmp_path, ann_file='bank.txt'),
        loader(tmp_path, ann_file='query.txt'),
    )
    figures(splits)
    told = splits.remarks['classes']
    assert 'by number' in told
    assert '2 in the bank, 3 among the queries, 2 in both' in told


@pytest.mark.parametrize(
    ('first', 'second', 'numbers'),
    [
        (('a', 'b', 'c'), ('c', 'a'), (2, 0)),
        # A list of numbers, or folders called 0, 1, 2: the same either way.
        (('0', '1', '2'), ('1', '2'), (1, 2)),
        (('1', '3'), ('0', '1'), None),
        (('a', 'b'), ('a', 'b'), (0, 1)),
        (('a', 'b'), ('0', '1'), None),
        (('a', 'b'), (), None),
        ((), ('a',), None),
        (('0', '1'), ('0', '1', '2'), None),
    ],
)
def test_names_that_look_like_numbers(first, second, numbers):
    if first == ('1', '3'):
        with pytest.raises(ValueError, match="'0'"):
            match_names(first, second)
        return
    matching = match_names(first, second)
    assert matching.numbers == numbers
    assert matching.by_name == (numbers is not None)


def test_columns_of_multi_label_sets_follow_their_names():
    matching = match_names(('a', 'b', 'c'), ('c', 'a'))
    labels = torch.tensor([[1, 0], [-1, 1]])
    assert matching.apply(labels).tolist() == [[0, 0, 1], [1, 0, -1]]


class Told:
    """Folders and fixed names, as mmpretrain's ImageNet has them."""

    def __init__(self, classes, folders=None):
        self.metainfo = {'classes': classes}
        self.folder_to_idx = folders


def test_fixed_names_do_not_hide_what_the_folders_are():
    words = ('tench', 'goldfish')
    whole = Told(words, {'n01': 0, 'n02': 1})
    part = Told(words, {'n02': 0})
    assert match(whole, part).numbers == (1,)
    assert match(whole, Told(words)).numbers == (0, 1)


def test_scores_without_a_place():
    inf = float('inf')
    scores = torch.tensor(
        [[-inf, 1.0, 0.5], [2.0, 2.0, 2.0], [float('nan'), 0.0, 1.0]]
    )
    found = [
        classification_metrics(scores, torch.full((3,), c)) for c in range(3)
    ]
    assert [round(m['top1']) for m in found] == [33, 33, 0]
    assert [round(m['top5']) for m in found] == [33, 100, 100]
