"""Lists as other tools and people write them."""

import json
import random

import pytest
from PIL import Image

from mmmoco.datasets import ImageFolderDataset

NAMES = ['a b.png', 'cat/x.png', 'dog/y, z.png', 'é 3.png']
LABELS = [2, 0, 1, 1]


@pytest.fixture
def images(tmp_path):
    for name in NAMES:
        path = tmp_path / 'images' / name
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.new('RGB', (4, 4)).save(path)
    return tmp_path / 'images'


def quoted(name):
    return f'"{name}"' if ',' in name else name


def lines(labels):
    return [f'{n} {k}' if labels else n for n, k in zip(NAMES, LABELS)]


def table(delimiter, head, labels=LABELS, cells=quoted):
    rows = [[head[0], 'width', *head[1:]]]
    rows += [[cells(n), '4', str(k)] for n, k in zip(NAMES, labels)]
    return [delimiter.join(row) for row in rows]


def openmmlab(**meta):
    entries = [{'img_path': n, 'gt_label': k} for n, k in zip(NAMES, LABELS)]
    return [json.dumps({'metainfo': meta, 'data_list': entries})]


#: Form → lines, and whether they have labels.
FORMS = {
    'paths': (lines(False), False),
    'paths and labels': (lines(True), True),
    'tabs': ([line[::-1].replace(' ', '\t', 1)[::-1] for line in lines(True)],)
    + (True,),
    'csv': (table(',', ('path', 'label')), True),
    'csv of pandas': (table(',', ('Image_Path', 'Class')), True),
    'semicolons': (table(';', ('"filename"', '"target"'), cells=str), True),
    'tsv': (table('\t', ('img', 'category'), cells=str), True),
    'json': (openmmlab(), True),
    'json with names': (openmmlab(classes=['p', 'q', 'r']), True),
    'json list': ([json.dumps(NAMES)], False),
}
ENCODINGS = ['utf-8', 'utf-8-sig', 'utf-16']
ENDS = ['\n', '\r\n', '\n\n']


@pytest.mark.parametrize('with_labels', [False, True])
@pytest.mark.parametrize('form', FORMS)
def test_every_form_in_every_encoding(images, tmp_path, form, with_labels):
    text, labelled = FORMS[form]
    file = tmp_path / 'list.txt'
    for encoding in ENCODINGS:
        for end in ENDS:
            file.write_bytes((end.join(text) + end).encode(encoding))
            options = dict(
                data_root=str(images),
                ann_file=str(file),
                with_labels=with_labels,
            )
            if with_labels and not labelled:
                with pytest.raises(ValueError, match=r'list\.txt.*label'):
                    ImageFolderDataset(**options)
                continue
            data = ImageFolderDataset(**options)
            assert data.paths == [str(images / name) for name in NAMES]
            assert data.labels == (LABELS if with_labels else None)
    if with_labels and form == 'json with names':
        assert data.classes == ('p', 'q', 'r')
    elif with_labels and labelled:
        assert data.classes == ('0', '1', '2')


def test_labels_may_be_names(images, tmp_path):
    text = '\n'.join(table(',', ('path', 'label'), ['c', 'a', 'b', 'b']))
    (tmp_path / 'l.csv').write_text(text)
    data = ImageFolderDataset(
        str(images), ann_file=str(tmp_path / 'l.csv'), with_labels=True
    )
    assert data.classes == ('a', 'b', 'c') and data.labels == [2, 0, 1, 1]


def test_that_labels_are_left_out_is_said(images, tmp_path):
    from mmengine.logging import MMLogger

    MMLogger.get_instance('lists', log_file=str(tmp_path / 'log'))
    (tmp_path / 'l.txt').write_text('\n'.join(lines(True)))
    ImageFolderDataset(str(images), ann_file=str(tmp_path / 'l.txt'))
    assert 'each of its 4 lines is left out' in (tmp_path / 'log').read_text()


def test_a_name_that_ends_with_a_number_is_no_label(tmp_path):
    Image.new('RGB', (4, 4)).save(tmp_path / 'x.png')
    (tmp_path / 'x.png').rename(tmp_path / 'photo 12')
    (tmp_path / 'l.txt').write_text('photo 12\n')
    data = ImageFolderDataset(str(tmp_path), ann_file='l.txt')
    assert data.paths == [str(tmp_path / 'photo 12')]


def test_names_in_other_encodings_stay_their_bytes(tmp_path):
    import os

    name = os.fsencode(tmp_path) + b'/caf\xe9.png'
    with open(name, 'wb') as file:
        Image.new('RGB', (4, 4)).save(file, 'png')
    (tmp_path / 'l.txt').write_bytes(b'caf\xe9.png\n')
    data = ImageFolderDataset(
        str(tmp_path), ann_file='l.txt', pipeline=[dict(type='LoadRGB')]
    )
    assert data[0]['img'].shape == (4, 4, 3)


LONG = 'x' * 100_000
NO_LISTS = {
    'one line': LONG,
    'json': '{"data_list": [' + '{"img_path": 5, "x": "' + LONG + '"}]}',
    'no data_list': json.dumps({'images': [LONG], 'annotations': []}),
    'broken json': '{"data_list": [' + LONG,
    'deep json': '[' * 100_000,
    'many keys': json.dumps({f'{i}{LONG[:50]}': 0 for i in range(2000)}),
    'number': '[1, 2, 3]',
    'csv line': f'path,label\n{LONG}\n',
    'csv quote': f'path,label\n"{LONG},1\n',
    'csv head': 'path,' + ','.join(f'c{i}' for i in range(9000)) + '\na,1\n',
    'surrogates': '{"data_list": ["\\ud800' + LONG + '"]}',
    'nul': 'a\0b.png\n',
    'nothing': '\ufeff\n \n',
}


@pytest.mark.parametrize('with_labels', [False, True])
@pytest.mark.parametrize('name', NO_LISTS)
def test_no_error_quotes_a_whole_file(tmp_path, name, with_labels):
    (tmp_path / 'list').write_text(NO_LISTS[name])
    with pytest.raises((ValueError, OSError)) as error:
        ImageFolderDataset(
            str(tmp_path), ann_file='list', with_labels=with_labels
        )
    text = str(error.value)
    assert len(text) < 900 and 'list' in text
    text.encode('utf-8')


def test_any_bytes_are_a_list_or_an_error(tmp_path):
    draws = random.Random(0)
    whole = ['\n'.join(text).encode() for text, _ in FORMS.values()]
    for _ in range(300):
        data = bytearray(draws.choice(whole))
        for _ in range(draws.randrange(1, 6)):
            place = draws.randrange(len(data))
            data[place : place + draws.randrange(3)] = draws.randbytes(2)
        (tmp_path / 'l').write_bytes(data)
        try:
            ImageFolderDataset(
                str(tmp_path), ann_file='l', with_labels=draws.random() < 0.5
            )
        except (ValueError, OSError) as error:
            assert len(str(error)) < 900
