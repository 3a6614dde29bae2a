"""Queries that stand in the bank: counted, and left out when asked."""

import os
import shutil

import pytest
import torch

from mmmoco.engine.evaluation import KNN
from mmmoco.engine.evaluation.leaks import (
    EQUAL,
    ImageIdentity,
    find_leaks,
    leave_out,
)
from mmmoco.functional import Neighbours, nearest, vote

from .colour_folders import Pixels, draw_class, figures, loader, splits_of

CLASSES = 4


@pytest.fixture
def folder(tmp_path):
    for number in range(CLASSES):
        draw_class(tmp_path / f'bank/{number}x', number, 8, seed=0)
        draw_class(tmp_path / f'query/{number}x', number, 5, seed=1)
    return tmp_path


def leaks_of(folder, bank='bank', query='query', **options):
    splits = splits_of(loader(folder / bank), loader(folder / query))
    return splits, figures(splits, **options)


def test_separate_splits_have_none(folder):
    splits, _ = leaks_of(folder)
    assert 'queries_in_bank' not in splits.remarks


def test_each_way_in_which_a_query_can_stand_in_the_bank(folder, capsys):
    query = folder / 'query'
    shutil.copy(folder / 'bank/1x/3.png', query / '1x/copy.png')
    os.link(folder / 'bank/2x/3.png', query / '2x/link.png')
    os.symlink(folder / 'bank/3x/3.png', query / '3x/symlink.png')
    # The same pixels in another file are another image of the same look.
    noted = (folder / 'bank/0x/3.png').read_bytes() + b' '
    (query / '0x/other.png').write_bytes(noted)
    splits, _ = leaks_of(folder)
    assert splits.remarks['queries_in_bank'] == 3
    splits, _ = leaks_of(folder, query='bank')
    assert splits.remarks['queries_in_bank'] == CLASSES * 8
    bank, query = splits.extract(Pixels())
    assert splits.remarks['queries_in_bank'] == CLASSES * 8
    assert len(splits.identity.by_path) == CLASSES * 8


def test_only_candidates_are_read(folder, monkeypatch):
    shutil.copy(folder / 'bank/1x/3.png', folder / 'query/1x/copy.png')
    splits = splits_of(loader(folder / 'bank'), loader(folder / 'query'))
    read = []
    from mmmoco.engine.evaluation import leaks

    original = leaks.file_hash
    monkeypatch.setattr(
        leaks, 'file_hash', lambda path: read.append(path) or original(path)
    )
    figures(splits)
    assert [os.path.basename(path) for path in read] == ['3.png', 'copy.png']


def transcribed(values, labels, same, k, temperature=0.07):
    """Leave-one-out k-NN of one set, sample by sample."""
    unit = torch.nn.functional.normalize(values.double(), dim=1)
    hits = 0
    for i in range(len(unit)):
        others = [j for j in range(len(unit)) if not same(i, j)]
        cosine = unit[others] @ unit[i]
        best = cosine.topk(k)
        votes = torch.zeros(int(labels.max()) + 1, dtype=torch.double)
        for value, j in zip(best.values, best.indices, strict=True):
            votes[labels[others[j]]] += (value / temperature).exp()
        hits += int(votes.argmax() == labels[i])
    return 100 * hits / len(unit)


@pytest.mark.parametrize('copies', [0, 1, 6])
def test_leave_one_out_equals_its_transcription(folder, copies):
    """Six copies of an image are more than the first search leaves room for.

    Random labels: a query that found itself would be right.
    """
    draws = torch.Generator().manual_seed(0)
    for i in range(copies):
        shutil.copy(folder / 'bank/1x/3.png', folder / f'bank/2x/copy{i}.png')
    rows = sorted(
        str(p.relative_to(folder)) for p in (folder / 'bank').rglob('*.png')
    )
    labels = torch.randint(0, 5, (len(rows),), generator=draws)
    for i, row in enumerate(rows):
        # Equally near, they need one label: any of them may be the k-th.
        if 'copy' in row or row.endswith('1x/3.png'):
            labels[i] = 4
    lines = [f'{r} {int(c)}' for r, c in zip(rows, labels, strict=True)]
    (folder / 'list.txt').write_text('\n'.join(lines))
    both = [loader(folder, ann_file='list.txt') for _ in range(2)]
    splits = splits_of(*both)
    found = figures(splits, (1, 5), leave_one_out=True)
    bank, _ = splits.extract(Pixels())
    content = [(folder / row).read_bytes() for row in rows]
    for k in (1, 5):
        expected = transcribed(
            bank.values, labels, lambda i, j: content[i] == content[j], k
        )
        assert found[k]['top1'] == pytest.approx(expected)
    assert splits.remarks['queries_in_bank'] == len(rows)
    alike = figures(splits_of(*both), 1)[1]['top1']
    assert alike > 90 > found[1]['top1']
    assert KNN(5, leave_one_out=True).describe(splits)['leave_one_out']
    assert 'leave_one_out' not in KNN(5).describe(splits)


def test_too_few_others_is_an_error(folder):
    for i in range(3):
        shutil.copy(folder / 'bank/1x/3.png', folder / f'few{i}.png')
    (folder / 'list.txt').write_text(
        '\n'.join(f'few{i}.png 0' for i in range(3)) + '\nbank/0x/1.png 1'
    )
    both = [loader(folder, ann_file='list.txt') for _ in range(2)]
    with pytest.raises(ValueError, match='smaller k'):
        figures(splits_of(*both), 2, leave_one_out=True)


class Arrays(torch.utils.data.Dataset):
    """Images without files."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {'inputs': {'image': self.images[index]}}


def test_samples_that_are_no_files_are_compared_by_their_pixels():
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 4, 4), generator=draws)
    bank = Arrays(images.to(torch.uint8))
    query = Arrays(torch.cat([bank.images[5:8], 255 - bank.images[:3]]))
    values = [s.images.flatten(1).float() - 127 for s in (bank, query)]
    found = nearest(*values, 3)
    ids = torch.arange(20), torch.arange(6)
    leaks = find_leaks(ImageIdentity(bank, query), found, *ids)
    assert leaks.queries.tolist() == [True] * 3 + [False] * 3
    assert leaks.by_path == 0 and leaks.total == 3
    # Equal features alone are no proof: the pixels decide.
    blind = Neighbours(torch.ones(6, 3), found.indices)
    leaks = find_leaks(ImageIdentity(bank, query), blind, *ids)
    assert leaks.total == 3


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_equal_features_are_candidates_at_any_size(dtype):
    draws = torch.Generator().manual_seed(0)
    for width in (8, 512, 4096):
        x = torch.randn(40, width, generator=draws)
        found = nearest(x.to(dtype), x, 1)
        assert bool((found.similarity >= EQUAL).all())
        assert torch.equal(found.indices[:, 0], torch.arange(40))


def test_what_is_left_keeps_its_order():
    found = Neighbours(
        torch.tensor([[1.0, 0.9, 0.8, 0.7]]), torch.tensor([[4, 3, 2, 1]])
    )
    same = torch.tensor([[True, False, True, False]])
    assert leave_out(found, same, 2).indices.tolist() == [[3, 1]]
    assert leave_out(found, same, 3) is None
    assert vote(leave_out(found, same, 2), torch.arange(5), 5).shape == (1, 5)
