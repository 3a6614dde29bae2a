"""LVIS as JSON."""

import json

import pytest

from mmmoco.datasets import LVISInstances

CONTENT = {
    'images': [
        dict(
            id=number,
            file_name=name,
            width=64,
            height=side,
            neg_category_ids=[],
            not_exhaustive_category_ids=[],
        )
        for number, name, side in (
            (3, 'COCO_val2014_000000000003.jpg', 48),
            (4, 'sub/a_b.jpg', 48),
            (5, 'thin.jpg', 8),
        )
    ],
    # Not in the order of their numbers.
    'categories': [dict(id=9, name='nine'), dict(id=2, name='two')],
    'annotations': [
        dict(
            id=number,
            image_id=image,
            category_id=category,
            bbox=box,
            area=box[2] * box[3],
            segmentation=[[0, 0, 5, 0, 5, 5]],
        )
        for number, image, category, box in (
            (1, 3, 2, [1, 2, 10, 20]),
            (2, 3, 9, [0, 0, 0.5, 9]),  # too narrow
            (3, 3, 9, [70, 0, 9, 9]),  # outside
            (4, 5, 9, [0, 0, 6, 6]),
        )
    ],
}


def dataset(tmp_path, content=CONTENT, **options):
    (tmp_path / 'lvis.json').write_text(json.dumps(content))
    return LVISInstances(
        ann_file='lvis.json',
        data_root=str(tmp_path),
        data_prefix=dict(img='val2017/'),
        **options,
    )


def test_what_mmdet_needs_is_there(tmp_path):
    read = dataset(tmp_path)
    assert read.metainfo['classes'] == ('nine', 'two')
    paths = [read.get_data_info(i)['img_path'] for i in range(len(read))]
    root = tmp_path / 'val2017'
    names = ['000000000003.jpg', 'sub/a_b.jpg', 'thin.jpg']
    assert paths == [str(root / name) for name in names]
    first = read.get_data_info(0)
    assert (first['img_id'], first['width'], first['height']) == (3, 64, 48)
    assert first['instances'] == [
        dict(
            ignore_flag=0,
            bbox=[1, 2, 11, 22],
            bbox_label=1,
            mask=[[0, 0, 5, 0, 5, 5]],
        )
    ]
    assert [read.get_cat_ids(i) for i in range(3)] == [[1], [], [0]]


@pytest.mark.parametrize(
    ('options', 'kept'),
    [
        (dict(filter_cfg=dict(filter_empty_gt=True, min_size=32)), [3]),
        (dict(filter_cfg=dict(min_size=32)), [3, 4]),
        (dict(filter_cfg=dict(min_size=32), test_mode=True), [3, 4, 5]),
    ],
)
def test_filter(tmp_path, options, kept):
    read = dataset(tmp_path, **options)
    ids = [read.get_data_info(i)['img_id'] for i in range(len(read))]
    assert ids == kept


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([], 'no file of LVIS .*TypeError'),
        ({'images': []}, "no file of LVIS .*KeyError.'categories'"),
        (
            {**CONTENT, 'images': [dict(id=3, width=1, height=1)]},
            "no file of LVIS .*KeyError.'coco_url'",
        ),
        ({**CONTENT, 'images': [[3]]}, 'no file of LVIS .*AttributeError'),
        *(
            (
                {**CONTENT, 'images': [CONTENT['images'][0] | part]},
                'an image outside of its folder',
            )
            for part in (
                {'file_name': '/etc/hostname'},
                {'file_name': 'a/../../b.jpg'},
                {'file_name': '', 'coco_url': '/etc/hostname'},
            )
        ),
        (
            {**CONTENT, 'annotations': [{'image_id': 3, 'bbox': [1, 2, 3]}]},
            'no file of LVIS .*ValueError',
        ),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        dataset(tmp_path, content)


def test_files_elsewhere_are_refused(tmp_path):
    with pytest.raises(ValueError, match='backend_args'):
        dataset(tmp_path, backend_args=dict(backend='petrel'))
