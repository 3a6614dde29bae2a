"""Distributions inside objects and between them."""

import pytest
import torch

from mmmoco.evaluation.similarity import PairSimilarities, patch_objects

from .test_zero_shot import scene


def pair_similarities(images):
    """Add up images."""
    result = PairSimilarities()
    for tokens, objects in images:
        result.add(tokens, objects)
    return result


def test_an_oracle_has_no_overlap():
    oracle, masks = scene()
    objects = patch_objects(masks, (6, 8))
    m = pair_similarities([(oracle, objects)]).metrics()
    assert m['overlap'] == 0.0 and m['auc'] == 1.0
    assert m['intra_mean'] > 0.99 and abs(m['inter_mean']) < 0.01


@pytest.mark.parametrize('seed', range(6))
def test_patches_take_the_object_that_covers_them(seed):
    """Also where patches do not divide the image, but for thin rests."""
    draws = torch.Generator().manual_seed(seed)
    rows, columns = torch.randint(2, 7, (2,), generator=draws).tolist()
    ids = torch.randint(0, 3, (rows, columns), generator=draws)
    for height, width in ((rows * 8, columns * 5), (rows * 9 + 1, 97)):
        y = ((torch.arange(height) + 0.5) * rows / height).long()
        x = ((torch.arange(width) + 0.5) * columns / width).long()
        pixels = ids[y][:, x]
        masks = torch.stack([pixels == i for i in range(3)])
        objects = patch_objects(masks, (rows, columns))
        assert torch.equal(objects.view(rows, columns), ids)


def test_constant_features_overlap_completely():
    _, masks = scene()
    objects = patch_objects(masks, (6, 8))
    m = pair_similarities([(torch.ones(4, 6, 8), objects)]).metrics()
    assert m['overlap'] == 1.0 and m['auc'] == pytest.approx(0.5)


def test_pairs_are_counted_once():
    oracle, masks = scene()
    objects = patch_objects(masks, (6, 8))
    pairs = pair_similarities([(oracle, objects)] * 2)
    sizes = [6, 6, 3]
    intra = sum(n * (n - 1) // 2 for n in sizes)
    inter = 6 * 6 + 6 * 3 + 6 * 3
    assert pairs.intra.sum() == 2 * intra and pairs.inter.sum() == 2 * inter


def test_statistics_against_the_pairs_themselves():
    draws = torch.Generator().manual_seed(0)
    tokens = torch.randn(8, 6, 8, generator=draws)
    _, masks = scene()
    objects = patch_objects(masks, (6, 8))
    m = pair_similarities([(tokens, objects)]).metrics()
    unit = torch.nn.functional.normalize(tokens.flatten(1), dim=0)
    intra, inter = [], []
    for i in range(48):
        for j in range(i):
            if objects[i] < 0 or objects[j] < 0:
                continue
            same = objects[i] == objects[j]
            (intra if same else inter).append(float(unit[:, i] @ unit[:, j]))
    intra, inter = torch.tensor(intra), torch.tensor(inter)
    assert m['intra_mean'] == pytest.approx(float(intra.mean()), abs=0.01)
    assert m['inter_std'] == pytest.approx(float(inter.std()), abs=0.01)
    auc = (intra[:, None] > inter[None]).float().mean()
    assert m['auc'] == pytest.approx(float(auc), abs=0.01)


def test_a_patch_belongs_to_what_covers_more_than_half_of_it():
    masks = torch.zeros(2, 4, 8, dtype=torch.bool)
    masks[0, :, :3] = True  # three quarters of patch 0
    masks[1, :2, 4:] = True  # exactly half of patch 1
    assert patch_objects(masks, (1, 2)).tolist() == [0, -1]
    assert patch_objects(masks & False, (1, 2), True).tolist() == [2, 2]


def test_no_pairs_are_an_error():
    with pytest.raises(ValueError, match='no pairs'):
        PairSimilarities().metrics()
