import pytest

from mmmoco.datasets.transforms.multi_hot import MultiHot


def test_present_wins_over_difficult():
    sample = {'gt_label': [0, 2], 'gt_label_difficult': [2, 3]}
    result = MultiHot(num_classes=5)(sample)
    assert result['gt_label'].tolist() == [1, 0, 1, -1, 0]


def test_no_class_at_all():
    assert MultiHot(3)({'gt_label': []})['gt_label'].tolist() == [0, 0, 0]


def test_unknown_class_names_the_image():
    with pytest.raises(ValueError, match=r'a\.jpg.*class 3'):
        MultiHot(3)({'gt_label': [3], 'img_path': 'a.jpg'})
