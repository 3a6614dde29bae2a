"""The fuzzer finds what it is made to find."""

import importlib.util
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from ..conftest import optional

FILE = Path(__file__).parents[2] / 'benchmarks' / 'fuzz.py'


@pytest.fixture
def fuzz(monkeypatch):
    import sys

    spec = importlib.util.spec_from_file_location('fuzz', FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'fuzz', module)  # For its dataclasses.
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'SECONDS', 1)
    return module


def connects(folder):
    with socket.socket() as one:
        one.connect_ex(('127.0.0.1', 9))


def refused_at_length(folder):
    raise ValueError('x' * 10_000)


FAULTS = {
    'KeyError': lambda folder: {}['x'],
    'MemoryError': lambda folder: bytearray(1 << 40),
    'a process': lambda folder: subprocess.run(['true'], check=False),
    'a connection': connects,
    'a file outside: open': lambda folder: (folder / '../../x').open('w'),
    'a file outside: open /etc': lambda folder: Path(
        '/etc/hostname'
    ).read_text(),
    'a file outside: os.remove': lambda folder: Path('/nowhere/x').unlink(),
    'more than 1 s': lambda folder: time.sleep(20),
    'died (-11)': lambda folder: os.kill(os.getpid(), 11),
    'died (1)': lambda folder: os._exit(1),
    'a message of 10000': refused_at_length,
}


@pytest.mark.parametrize('what', FAULTS)
def test_each_kind_of_fault_is_found(fuzz, tmp_path, what, monkeypatch):
    def read(folder):
        if b'bad' in (folder / 'x').read_bytes():
            FAULTS[what](folder)

    kind = fuzz.Kind(lambda: [b'good'], read, (ValueError,), 'x')
    inputs = iter([b'good', b'also good', b'bad'] * 2)
    monkeypatch.setattr(fuzz, 'make_input', lambda *args: next(inputs))
    after, accepted, refused, found = fuzz.batch(kind, [], '0', range(3))
    assert found is not None and found.what.startswith(what.split(' /')[0])
    assert after == 3 and refused == 0
    assert accepted in (2, 0)  # One that dies counts nothing.


@pytest.mark.slow
def test_a_short_run_of_every_kind_finds_nothing(fuzz, tmp_path, monkeypatch):
    optional('tifffile')
    monkeypatch.setattr(fuzz, 'SECONDS', 30)
    monkeypatch.setattr(fuzz, 'BATCH', 40)
    monkeypatch.chdir(tmp_path)
    kinds = [name for name in fuzz.KINDS if name != 'checkpoints']
    table = fuzz.fuzz(kinds, 6, 3, tmp_path / 'findings')
    assert not any(row['findings'] for row in table.values()), table
    assert all(row['inputs'] >= 40 for row in table.values())
    assert all(row['accepted'] for row in table.values())
