"""Own labels read for a downstream config: by name, and never silently."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import mmmoco
from mmmoco.apis import load_config
from mmmoco.apis.config import python_text
from mmmoco.apis.own_data import class_folders, coco, make, masks, models
from mmmoco.apis.own_data.data import Wishes, read_data
from mmmoco.apis.own_data.start import read_start
from mmmoco.files import lines_of

from ..conftest import optional

#: What Python, mmengine's templates or a line of a file could take wrongly.
NAMES = [
    'car',
    'a "b"',
    "it's",
    'two\nlines',
    '{{ fileDirname }}',
    '{{ $HOME:x }}',
    '{{_base_.classes}}',
    'back\\slash',
    "'''",
    'Straße',
    '_base_',
    '#',
    'car ',
    r'{{{$A:x|\nraise#}}',
    'a\0b\x1b[2J',
]


def draw(rng, folder, names, numbers):
    """Write a file with objects of random classes, and what tools leave."""
    folder.mkdir(exist_ok=True)
    images = []
    for i in rng.sample(range(50), rng.randint(1, 6)):
        picture(folder / f'{i}.jpg', (40, 30))
        images.append(
            {'id': i, 'file_name': f'{i}.jpg', 'width': 40, 'height': 30}
        )
    categories = [
        {'id': n, 'name': name} for name, n in zip(names, numbers, strict=True)
    ]
    objects = []
    for i in range(rng.randint(1, 12)):
        item = {
            'id': i,
            'image_id': rng.choice(images)['id'],
            'category_id': rng.choice(numbers),
            'bbox': [
                rng.uniform(-20, 50),
                rng.uniform(-20, 40),
                rng.uniform(0, 30),
                rng.uniform(0, 30),
            ],
            'area': rng.uniform(1, 900),
            'iscrowd': rng.choice([0, 0, 0, 1]),
        }
        for key in ('id', 'area', 'iscrowd'):
            if rng.random() < 0.02:
                del item[key]
        objects.append(item)
    seen = {**objects[0], 'bbox': [1, 1, 9, 9], 'iscrowd': 0, 'id': 99}
    return {
        'images': images,
        'annotations': [*objects, seen],
        'categories': categories,
    }


def two_files(rng, root):
    """Training and validation, whose classes have other ids and order."""
    names = rng.sample(NAMES, rng.randint(1, 6))
    numbers = rng.sample([0, 1, 2, 5, 10, 20, 90, 700], len(names))
    part = rng.sample(names, rng.randint(1, len(names)))
    others = rng.sample(range(30), len(part))
    made = {
        'train': draw(rng, root / 'train', names, numbers),
        'val': draw(rng, root / 'val', part, others),
    }
    for name, content in made.items():
        (root / f'{name}.json').write_text(json.dumps(content))
    return made


def places(root):
    return {p: [str(root / f'{p}.json'), str(root / p)] for p in SPLITS}


SPLITS = ('train', 'val')


@pytest.mark.parametrize('seed', range(40))
def test_pycocotools_numbers_the_classes_as_the_config(seed, tmp_path):
    """Each object is, by the number it gets, of the class of its name."""
    COCO = optional('pycocotools.coco').COCO
    made = two_files(random.Random(seed), tmp_path)
    out = str(tmp_path / 'config.py')
    where = places(tmp_path).values()
    usual = 'random', None, None, False, None, None, None, 1
    data = read_data(Wishes('det', *where, *usual, out))
    for path, text in data.files.items():
        Path(path).write_text(text)
    assert data.classes == tuple(
        c['name'] for c in made['train']['categories']
    )
    for split, dataset in (('train', data.train), ('val', data.val)):
        read = COCO(dataset['ann_file'])
        ids = read.getCatIds(catNms=list(data.classes))
        assert len(ids) == len(data.classes)
        label = {number: i for i, number in enumerate(ids)}
        name = {c['id']: c['name'] for c in made[split]['categories']}
        objects = list(read.anns.values())
        given = made[split]['annotations']
        assert len(objects) == len(given)  # None has the id of another one.
        assert 0 not in read.anns
        for item, before in zip(objects, given, strict=True):
            assert item['bbox'] == before['bbox']
            assert {'area', 'iscrowd'} <= item.keys()
            number = label[item['category_id']]
            assert data.classes[number] == name[before['category_id']]


@pytest.mark.parametrize('seed', range(100))
def test_nothing_that_a_config_quotes_becomes_code(seed, tmp_path):
    """Neither in a value nor in a comment, of whatever signs it is made."""
    rng = random.Random(seed)
    signs = ['{', '{{', '}}', '$A', ':x|', r'\n', 'raise', '#', *'"\'\\ \n']
    signs += [
        '\0',
        '\r',
        '\x0c',
        '\x1a',
        '\x85',
        '\u2028',
        '\ud800',
        '_base_.a',
    ]
    text = ''.join(rng.choices(signs, k=30))
    text += '{' * rng.randint(1, 5) + r'$A:x|\nraise#}}'
    lines = [python_text.said(text), f'value = {python_text.written(text)}']
    assert '{{' not in ''.join(lines)
    (tmp_path / 'a.py').write_text('\n'.join(lines), encoding='utf-8')
    read = Config.fromfile(str(tmp_path / 'a.py'))
    assert read.to_dict() == {'value': text}


@pytest.mark.downstream
@pytest.mark.slow
@pytest.mark.parametrize('seed', range(40, 43))
def test_a_config_is_read_alike_by_mmengine_and_here(seed, tmp_path):
    """And mmdet's data sets then see what the files say."""
    optional('mmdet')
    from mmdet.datasets import CocoDataset

    made = two_files(random.Random(seed), tmp_path)
    out = str(tmp_path / 'config.py')
    given = {name: place for name, place in places(tmp_path).items()}
    told = mmmoco.transfer_config('det', **given, out=out)
    theirs, ours = Config.fromfile(out), load_config(out)
    assert theirs.to_dict() == ours.to_dict()
    classes = tuple(c['name'] for c in made['train']['categories'])
    assert tuple(theirs.classes) == told.classes == classes
    assert theirs.model.roi_head.bbox_head.num_classes == len(classes)
    for split in SPLITS:
        dataset = theirs[f'{split}_dataloader'].dataset.to_dict()
        kind = dataset.pop('type')
        assert kind == 'CocoDataset'
        read = CocoDataset(**dataset | dict(pipeline=[]))
        assert len(read) == len(made[split]['images'])  # Negatives too.
        name = {c['id']: c['name'] for c in made[split]['categories']}
        boxes = {
            (a['image_id'], *a['bbox'][:2]): name[a['category_id']]
            for a in made[split]['annotations']
        }
        for image in read:
            for item in image['instances']:
                at = (image['img_id'], *item['bbox'][:2])
                assert classes[item['bbox_label']] == boxes[at]


GOOD = {
    'images': [{'id': 1, 'file_name': 'a.jpg', 'width': 40, 'height': 30}],
    'annotations': [
        {
            'id': 1,
            'image_id': 1,
            'category_id': 10,
            'bbox': [1, 2, 9, 9],
            'area': 81,
            'iscrowd': 0,
            'segmentation': [[1, 2, 10, 2, 10, 11]],
        }
    ],
    'categories': [{'id': 10, 'name': 'car'}, {'id': 0, 'name': 'dog'}],
}
#: Message, part, and what its first entry then says.
MISTAKES = [
    (r'images\[0\] has height=None', 'images', {'height': None}),
    (r"images\[0\] has id='1'", 'images', {'id': '1'}),
    (r'categories\[0\] has name=None', 'categories', {'name': None}),
    ('have the same id: 0', 'categories', {'id': 0}),
    ("have the same name: 'dog'", 'categories', {'name': 'dog'}),
    ('names of up to 1,001 letters', 'categories', {'name': 'a' * 1001}),
    ('has category_id=7, which no', 'annotations', {'category_id': 7}),
    ('has image_id=7, which no', 'annotations', {'image_id': 7}),
    ('has bbox=.*four numbers', 'annotations', {'bbox': [1]}),
    ('four numbers', 'annotations', {'bbox': [1, 2, 3, float('nan')]}),
    ('no object of', 'annotations', {'bbox': [99, 9, 9, 9]}),
    ('no outline', 'annotations', {'segmentation': None}),
    ('no outline', 'annotations', {'segmentation': [[1, 2, 3, 4]]}),
    (
        'no outline',
        'annotations',
        {'segmentation': {'size': [40, 30], 'counts': 'a'}},
    ),
    ("1 of 1 images .* are not in .*: 'b'", 'images', {'file_name': 'b'}),
    ('are not in', 'images', {'file_name': 'a\0.jpg'}),
    *(
        ('are not in', 'images', {'file_name': name})
        for name in ('..', '../b.jpg', __file__, 'a:http://b/a.jpg')
    ),
    *(
        ('between 1 and', 'images', {'width': wide, 'height': high})
        for wide, high in ((0, 9), (-9, -9), (10**6, 10**6))
    ),
    *(
        ('a whole number', part, {'id': number})
        for part in ('images', 'categories')
        for number in (10**30, -(10**30), 1.0, True)
    ),
    *(
        ('four numbers', 'annotations', {'bbox': [0, 0, 9, size]})
        for size in (10**400, 1e300, True, '9', None)
    ),
    *(
        ('no outline', 'annotations', {'segmentation': outline})
        for outline in (
            *([[1, 2, 9, 2, 9, far]] for far in (401, -401, 1e9, 10**400)),
            *(
                {'size': [30, 40], 'counts': counts}
                for counts in ([5], [0, 9999], [1300, -100], [600.0, 600])
            ),
        )
    ),
    *(
        ('no object of', 'annotations', {name: 1})
        for name in ('iscrowd', 'ignore')
    ),
]


def text_of(part, change):
    content = json.loads(json.dumps(GOOD))
    content[part][0].update(change)
    return json.dumps(content)


@pytest.mark.parametrize(
    'message, text',
    [
        ('is no JSON', '[' * 100_000),
        ('holds no object', '[1]'),
        ('has no annotations', json.dumps(GOOD | {'annotations': []})),
        ('has no categories', json.dumps(GOOD | {'categories': 3})),
        (
            'several images have the same id',
            json.dumps(GOOD | {'images': GOOD['images'] * 2}),
        ),
        *((message, text_of(*rest)) for message, *rest in MISTAKES),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(message, text, tmp_path):
    (tmp_path / 'ann.json').write_text(text)
    picture(tmp_path / 'a.jpg', (40, 30))
    with pytest.raises((ValueError, OSError), match=message) as caught:
        coco.read_objects(
            str(tmp_path / 'ann.json'), str(tmp_path), None, True
        )
    assert len(str(caught.value)) < 1500
    assert '\n' not in str(caught.value)


def write(root, content, name='ann'):
    (root / f'{name}.json').write_text(json.dumps(content))
    picture(root / 'a.jpg', (40, 30))
    return str(root / f'{name}.json')


def test_what_is_odd_is_said_and_a_good_file_is_not_copied(tmp_path):
    content = json.loads(json.dumps(GOOD))
    found = coco.read_objects(
        write(tmp_path, content), str(tmp_path), None, True
    )
    assert found.text() is None
    assert found.numbers == {'car': 10, 'dog': 0}
    assert found.remarks == [
        "1 images, 1 objects: 'car' 1",
        "no objects of 'dog'",
    ]
    more = content['annotations'][0]
    content['annotations'] += [
        more | {'id': 2, 'iscrowd': 1},
        more | {'id': 3, 'bbox': [-20, 0, 10, 10]},
    ]
    content['images'].append(content['images'][0] | {'id': 2})
    found = coco.read_objects(
        write(tmp_path, content), str(tmp_path), ['car'], False
    )
    assert found.classes == ('car',)
    said = ' '.join(found.remarks)
    for part in ('1 images without', '1 objects are crowds', '1 boxes lie'):
        assert part in said
    with pytest.raises(ValueError, match="has no 'bus'; it has 'car', 'dog'"):
        coco.read_objects(found.ann, str(tmp_path), ['bus'], False)


@pytest.mark.parametrize(
    'change, encoding, said',
    [
        ({}, 'utf-8-sig', 'it is written in UTF-8'),
        ({}, 'utf-16', 'it is written in UTF-8'),
        *(
            ({'area': area}, 'utf-8', 'its annotations have area')
            for area in (0, -1, None, float('nan'), float('inf'), '81')
        ),
        ({'id': 1 << 60}, 'utf-8', 'its annotations have ids from 1 on'),
    ],
)
def test_what_mmdet_would_leave_out_or_not_read_is_mended(
    change, encoding, said, tmp_path
):
    content = json.loads(json.dumps(GOOD))
    content['annotations'][0].update(change)
    path = tmp_path / 'ann.json'
    path.write_text(json.dumps(content), encoding)
    picture(tmp_path / 'a.jpg', (40, 30))
    found = coco.read_objects(str(path), str(tmp_path), None, True)
    assert found.mended == [said]
    assert json.loads(found.text()) == GOOD


@pytest.mark.parametrize('turn', range(1, 9))
def test_an_image_is_as_large_as_is_said(turn, tmp_path):
    """As mmcv reads it: upright."""
    mmcv = optional('mmcv')
    exif = Image.Exif()
    exif[0x0112] = turn
    path = write(tmp_path, GOOD), str(tmp_path), None, False
    for size in ((40, 30), (30, 40), (41, 30)):
        Image.new('RGB', size).save(tmp_path / 'a.jpg', exif=exif)
        if mmcv.imread(str(tmp_path / 'a.jpg')).shape[:2] == (30, 40):
            coco.read_objects(*path)
            continue
        with pytest.raises(ValueError, match='says that .* has 40×30 pixels'):
            coco.read_objects(*path)


def test_a_class_that_only_validation_has_is_refused(tmp_path):
    other = json.loads(json.dumps(GOOD))
    other['categories'][0]['name'] = 'bus'
    train, val = (
        coco.read_objects(write(tmp_path, c, n), str(tmp_path), None, False)
        for c, n in ((GOOD, 'a'), (other, 'b'))
    )
    with pytest.raises(ValueError, match="has objects of 'bus', which"):
        coco.follow(val, train)


@pytest.mark.downstream
def test_what_is_there_is_not_written_over(tmp_path, monkeypatch):
    """A copy beside the config could be called as the annotation itself."""
    monkeypatch.chdir(tmp_path)
    content = json.loads(json.dumps(GOOD))
    content['annotations'][0]['id'] = 0
    write(tmp_path, content, 'my_train')
    before = Path('my_train.json').read_text()
    given = ['my_train.json', '.']
    with pytest.raises(FileExistsError, match=r'my_train\.json. is there'):
        mmmoco.transfer_config('det', train=given, val=given, out='my.py')
    assert Path('my_train.json').read_text() == before
    assert not Path('my.py').exists()


@pytest.mark.parametrize('length', [1, 7, 90, 900, 90_000])
def test_schedules_end_with_the_run(length):
    ends = dict(begin=1500, T_max=88_500)
    schedules = [
        dict(type='LinearLR', start_factor=1e-3, end=1500),
        dict(type='CosineAnnealingLR', **ends),
        dict(type='MultiStepLR', milestones=[60_000, 80_000]),
    ]
    warm, cosine, steps = make._fitted(schedules, 90_000, length)
    if length == 90_000:
        assert [warm['end'], cosine['T_max']] == [1500, 88_500]
        assert cosine['begin'] == 1500
        assert steps['milestones'] == [60_000, 80_000]
    assert warm['end'] == cosine['begin'] == max(2, min(1500, length // 20))
    assert cosine['begin'] + cosine['T_max'] == max(3, length)
    assert cosine['end'] == max(3, length)


# -------------------------------------------------------------------- masks


def mask(path, values, mode='L'):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.resize(np.array(values), (8, 8))
    array = array.astype(np.uint16 if max(values) > 255 else np.uint8)
    image = Image.fromarray(array)
    if mode == 'P':
        image.putpalette([7, 8, 9] * 256)
    kind = mode if mode == 'JPEG' else 'PNG'
    image = image.convert(mode) if mode == 'RGB' else image
    image.save(path, kind)


def picture(path, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size).save(path)


@pytest.mark.parametrize(
    'image, label',
    [
        ('img{}.jpg', 'img{}.png'),
        ('{}.png', '{}.png'),
        ('{}_leftImg8bit.png', '{}_gtFine_labelTrainIds.png'),
        ('{}.jpg', '{}_mask.png'),
        ('b/{}/x.rgb.jpg', 'b/{}/x.labels.png'),
    ],
)
def test_a_mask_is_found_by_the_name_of_its_image(image, label, tmp_path):
    for i in (1, 2, 10, 11):
        picture(tmp_path / 'i' / image.format(i))
        mask(tmp_path / 'm' / label.format(i), [0, 1, 255], 'P')
    picture(tmp_path / 'i' / image.format(12))
    found = masks.read_masks(str(tmp_path / 'm'), str(tmp_path / 'i'), None)
    ends = found.suffixes
    assert sorted(
        (stem + ends[0], stem + ends[1]) for stem in found.stems
    ) == sorted((image.format(i), label.format(i)) for i in (1, 2, 10, 11))
    assert found.values == {0, 1, 255} and found.size == (8, 8)
    assert not found.whole
    assert '1 images without mask are left out' in found.remarks


@pytest.mark.parametrize('name', ['.hidden/1.jpg', 'again', 'pipe.jpg'])
def test_what_mmseg_would_find_in_addition_is_left_out(name, tmp_path):
    picture(tmp_path / 'i' / '1.jpg')
    mask(tmp_path / 'm' / '1.png', [0, 1])
    place = tmp_path / 'i' / name
    if name == 'again':
        place.symlink_to(tmp_path / 'i')
    elif name == 'pipe.jpg':
        os.mkfifo(place)
    else:
        picture(place)
    found = masks.read_masks(str(tmp_path / 'm'), str(tmp_path / 'i'), None)
    assert found.text() == '1\n'


@pytest.mark.parametrize('name', ['x\n../1', ' 1', '1\t', '\udcff'])
def test_a_list_never_names_another_file(name):
    with pytest.raises(ValueError, match='cannot stand in a list'):
        lines_of(['0', name])


def test_masks_of_several_kinds_are_asked_about(tmp_path):
    for i in range(3):
        picture(tmp_path / 'i' / f'{i}_rgb.png')
        for kind in ('labelIds', 'trainIds'):
            mask(tmp_path / 'm' / f'{i}_{kind}.png', [0, 1])
    where = str(tmp_path / 'm'), str(tmp_path / 'i')
    with pytest.raises(ValueError, match="'labelIds.png', 'trainIds.png'"):
        masks.read_masks(*where, None)
    found = masks.read_masks(*where, 'trainIds.png')
    assert found.suffixes[1] == 'trainIds.png' and found.whole
    with pytest.raises(ValueError, match=r"that ends in 'x.png' is called"):
        masks.read_masks(*where, 'x.png')


@pytest.mark.parametrize(
    'values, mode, size, message',
    [
        ([0, 1], 'RGB', (8, 8), 'picture in colours'),
        ([0, 1], 'JPEG', (8, 8), 'is a JPEG'),
        ([0, 300], 'L', (8, 8), 'values from 0 to 300'),
        ([0, 1], 'L', (9, 8), '8×8 pixels, its image 9×8'),
    ],
)
def test_a_mask_that_is_none(values, mode, size, message, tmp_path):
    picture(tmp_path / 'i' / '1.jpg', size)
    mask(tmp_path / 'm' / '1.png', values, mode)
    with pytest.raises(ValueError, match=message):
        masks.read_masks(str(tmp_path / 'm'), str(tmp_path / 'i'), None)


@pytest.mark.parametrize(
    'values, wanted, reduce_zero, expected',
    [
        ({0, 1, 255}, None, False, ('0', '1')),
        ({0, 3}, None, False, ('0', '1', '2', '3')),
        ({0, 1, 2}, None, True, ('1', '2')),
        ({0, 2}, ('a', 'b', 'c'), False, ('a', 'b', 'c')),
        ({0, 255}, None, False, 'no two classes'),
        ({0, 1}, None, True, 'no two classes'),
        ({0, 1, 2}, ('a', 'b'), False, '--reduce-zero-label'),
        ({1, 5}, ('a', 'b'), False, 'name them all'),
    ],
)
def test_classes_of_values(values, wanted, reduce_zero, expected):
    if isinstance(expected, tuple):
        assert masks.classes_of(values, wanted, reduce_zero) == expected
        return
    with pytest.raises(ValueError, match=expected):
        masks.classes_of(values, wanted, reduce_zero)


# ------------------------------------------------------------ class folders


def test_class_folders_are_counted_as_those_of_the_training(tmp_path):
    for split, names in (('train', 'abc'), ('val', 'ca')):
        for name in names:
            picture(tmp_path / split / name / 'x y.png')
    (tmp_path / 'val' / '.ipynb_checkpoints').mkdir()
    train, val = (
        class_folders.read_folders(str(tmp_path / s)) for s in SPLITS
    )
    class_folders.require_known(val, train)
    assert train.text(('a', 'b', 'c')) is None
    assert val.text(('a', 'b', 'c')) == 'a/x y.png 0\nc/x y.png 2\n'
    assert "no images of 'b'" in val.remarks
    with pytest.raises(ValueError, match="does not know: 'b'"):
        class_folders.require_known(train, val)
    with pytest.raises(ValueError, match='has 0 folders with images'):
        class_folders.read_folders(str(tmp_path / 'val' / 'a'))


# ------------------------------------------------------------------ options


@pytest.mark.parametrize(
    'task, options, message',
    [
        ('det', {'train': ['a']}, '--train takes ANN IMAGES'),
        ('cls', {'train': ['a', 'b']}, '--train takes FOLDER'),
        ('det', {'train': ['nothing.json', '.']}, "'nothing.json' does not"),
        ('det', {'train': ['.', '.']}, "'.' is not a file"),
        ('cls', {'classes': 'a,b'}, '--classes means nothing'),
        ('det', {'classes': 'a,a'}, 'a name of its own'),
        ('det', {'mask_suffix': 'x'}, '--mask-suffix means nothing'),
        ('inst', {'reduce_zero_label': True}, '--reduce-zero-label'),
        ('det', {'epochs': 0}, '--epochs 0'),
        ('det', {'out': 'x.txt'}, 'ends in .py'),
        ('det', {'out': 'there.py'}, 'is there already'),
    ],
)
def test_options_are_checked_first(
    task, options, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD)
    Path('there.py').touch()
    usual = ['.'] if task == 'cls' else ['ann.json', '.']
    with pytest.raises((ValueError, OSError), match=message):
        mmmoco.transfer_config(
            task, **{'train': usual, 'val': usual, **options}
        )
    assert not Path('my_config.py').exists()


# ------------------------------------------------------------------- models


@pytest.mark.downstream
@pytest.mark.parametrize('kind', ['det', 'seg'])
def test_rates_of_twelve_blocks_are_the_recipes(kind):
    recipe = {
        'det': 'mmdetection/coco/mask-rcnn_vit-b_8xb8_100e',
        'seg': 'mmsegmentation/ade20k/upernet_vit-b_8xb2_160k',
    }[kind]
    cfg = load_config(f'benchmarks/{recipe}').to_dict()
    keys = cfg['optim_wrapper']['paramwise_cfg']['custom_keys']
    for depth in (12, 5):
        text = {}
        for name, value in models.layer_decay(keys, depth):
            exec(f'{name} = {value}', text)
        rates = text['rates']
        if depth == 12:
            assert rates.keys() == keys.keys()
            for name, value in keys.items():
                usual = {'decay_mult': 1.0}
                assert usual | rates[name] == pytest.approx(usual | value)
        decay = keys['backbone.layers.11.']['lr_mult']
        assert rates['backbone.layers.4.']['lr_mult'] == decay ** (depth - 4)
        assert f'backbone.layers.{depth}.' not in rates


@pytest.mark.parametrize(
    'images, gpus, init, new, own',
    [
        (16, 8, 'random', 'SyncBN', ('SyncBN', False)),
        (8, 1, 'supervised', 'BN', ('BN', False)),
        (2, 1, 'supervised', 'GN', ('BN', True)),
        (2, 1, 'random', 'GN', ('GN', False)),
    ],
)
def test_the_norm_is_what_the_batch_allows(images, gpus, init, new, own):
    start = read_start(init)
    layers, backbone, why = models.norms(start, images, gpus)
    assert layers['type'] == new and str(images) in why
    assert (backbone['norm_cfg']['type'], backbone['norm_eval']) == own
