"""What else reads foreign bytes: every call in the package is looked at."""

import ast
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from mmmoco.datasets import CIFAR
from mmmoco.datasets.cifar import load_batch

from . import crafted
from .crafted import array, call, dict_of, name, number, pickled, raw_bytes

PACKAGE = Path(__file__).parents[2] / 'mmmoco'

#: Calls that run code, or build objects, from what they are given.
READERS = {
    *('pickle.load', 'pickle.loads', 'pickle.Unpickler', 'pickle._loads'),
    *('torch.load', 'torch.jit.load', 'torch.hub.load', 'torch.package'),
    *('torch.hub.load_state_dict_from_url', 'torch.storage._load_from_bytes'),
    *('joblib.load', 'dill.load', 'dill.loads', 'cloudpickle.load'),
    *('cloudpickle.loads', 'shelve.open', 'marshal.load', 'marshal.loads'),
    *('yaml.load', 'yaml.unsafe_load', 'yaml.full_load'),
    *('pandas.read_pickle', 'pd.read_pickle'),
    *('np.load', 'numpy.load', 'np.lib.format.read_array', 'np.fromfile'),
    *('np.memmap', 'np.lib.format.open_memmap', 'np.genfromtxt'),
    *('eval', 'exec', 'compile', '__import__', 'runpy.run_path'),
    *('Config.fromstring', 'Config.fromfile', 'mmengine.load'),
    *('os.system', 'os.popen', 'subprocess.run', 'subprocess.Popen'),
    *('subprocess.check_output', 'subprocess.call', 'tarfile.extractall'),
}
#: Where one of them is used, and why it may be.
ALLOWED = {
    ('mmmoco/apis/cli.py', 'eval'): 'annotations of our own functions',
    ('mmmoco/apis/config/files.py', 'Config.fromfile'): 'configs are trusted',
    ('mmmoco/engine/environment.py', 'subprocess.run'): 'git, fixed words',
    (
        'mmmoco/engine/evaluation/features.py',
        'np.memmap',
    ): 'a file of its own, of floats',
}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imports_of_pickle(path):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and node.module in (
            *('pickle', 'joblib', 'dill', 'cloudpickle', 'marshal', 'shelve'),
        ):
            yield node.module


def test_nothing_in_the_package_unpickles_or_runs_what_it_reads():
    used = set()
    files = [p for p in PACKAGE.rglob('*.py') if '.mim' not in p.parts]
    assert len(files) > 150
    for path in files:
        place = path.relative_to(PACKAGE.parent).as_posix()
        assert not list(imports_of_pickle(path)), place
        for function, node in calls(path):
            words = {word.arg: word.value for word in node.keywords}
            if function in ('np.load', 'np.lib.format.read_array'):
                allowed = words.get('allow_pickle')
                assert isinstance(allowed, ast.Constant), place
                assert allowed.value is False, place
            elif function in READERS:
                used.add((place, function))
            if 'shell' in words:
                used.add((place, f'{function} with shell'))
    assert used <= set(ALLOWED), used - set(ALLOWED)
    # Nothing stays allowed that is used no longer.
    assert used == set(ALLOWED), set(ALLOWED) - used


# CIFAR's archives


def write_cifar(folder, labels, data=None):
    """Five batches of one image; the labels of all but the first are given."""
    image = array('u1', [1, 3072], bytes(3072), '|') if data is None else data
    for i in range(1, 6):
        given = b'](K\1e' if i == 1 else labels
        body = dict_of(raw_bytes(b'data'), image, raw_bytes(b'labels'), given)
        (folder / f'data_batch_{i}').write_bytes(pickled(body))
    names = {b'label_names': [b'a', b'b']}
    (folder / 'batches.meta').write_bytes(pickle.dumps(names, 2))


def test_a_forged_cifar_is_an_error_and_no_pointer(tmp_path):
    objects = call(
        name('numpy', 'ndarray'),
        b'(' + number(1) + b't',
        call(name('numpy', 'dtype'), crafted.text('O'), b'\x89', b'\x88'),
        raw_bytes(struct.pack('<Q', 0x4141414141414141)),
    )
    forged = {
        'objects over raw bytes': objects,
        'objects': array('O8', [1], bytes(8)),
        'code': call(name('os', 'system'), crafted.text('true')),
        'another name': call(name('argparse', 'Namespace')),
    }
    for labels in forged.values():
        write_cifar(tmp_path, labels)
        with pytest.raises(ValueError, match="'data_batch_2' cannot be read"):
            CIFAR(str(tmp_path))
    write_cifar(tmp_path, b'](K\1e')
    assert len(CIFAR(str(tmp_path))) == 5


def test_cifar_as_python_2_wrote_it():
    """Keys, dtype and raw data are all text of python 2."""
    pixels = bytes(range(256)) * 12
    body = array('u1', [1, 3072], b'', '|')
    body = body.replace(crafted.text('u1'), b'U\x02u1')
    body = body.replace(crafted.text('|'), b'U\x01|')
    body = body.replace(
        raw_bytes(b''), b'T' + struct.pack('<I', len(pixels)) + pixels
    )
    batch = dict_of(b'U\x04data', body, b'U\x06labels', b'](K\x06e')
    found = load_batch(pickled(batch), 'x')
    assert found[b'labels'] == [6]
    assert np.array_equal(
        found[b'data'], np.frombuffer(pixels, np.uint8)[None]
    )
