"""Who may write into a work dir cannot have us write or show elsewhere."""

import errno
import os
import stat
import time

import pytest

from mmmoco.apis.report.jobs import report
from mmmoco.engine.checkpoint_io import (
    read,
    remove_leftovers,
    write,
    write_bytes,
    write_text,
)
from mmmoco.engine.environment import write_environment

WRITERS = {
    'checkpoint': lambda path: write({'a': 2}, path),
    'text': lambda path: write_text(path, 'new'),
    'bytes': lambda path: write_bytes(path, b'new'),
}
NOBODY = 65534


def in_a_fork(function, uid=None):
    """Run a function in a process of its own, as another user if asked.

    Modes do not bind root, so the drop must have worked.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                assert os.getuid() == os.geteuid() == uid != 0
                with pytest.raises(PermissionError):
                    os.setuid(0)
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('write_it', WRITERS.values(), ids=WRITERS)
def test_a_link_is_replaced_and_its_target_stays(tmp_path, write_it):
    victim = tmp_path / 'victim'
    victim.write_text('precious')
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    targets = {
        'link': victim,
        'link to a link': work_dir / 'link',
        'dangling': tmp_path / 'nothing',
        'itself': work_dir / 'itself',
    }
    for name, target in targets.items():
        (work_dir / name).symlink_to(target)
    for name in targets:
        write_it(work_dir / name)
        assert not (work_dir / name).is_symlink()
        assert (work_dir / name).stat().st_size > 0
    assert victim.read_text() == 'precious'
    assert names_in(tmp_path) == ['run', 'victim']
    assert names_in(work_dir) == sorted(targets)


@pytest.mark.parametrize('write_it', WRITERS.values(), ids=WRITERS)
def test_the_work_dir_may_be_a_link(tmp_path, write_it):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'run').symlink_to('disk')
    write_it(tmp_path / 'run' / 'a')
    assert (tmp_path / 'run').is_symlink()
    assert names_in(tmp_path / 'disk') == ['a']


@pytest.mark.parametrize('write_it', WRITERS.values(), ids=WRITERS)
def test_what_is_no_file_is_not_replaced(tmp_path, write_it):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'to pipe').symlink_to('pipe')
    (tmp_path / 'to device').symlink_to('/dev/null')
    before = names_in(tmp_path)
    for name in before:
        start = time.monotonic()
        with pytest.raises(OSError, match='no regular file') as error:
            write_it(tmp_path / name)
        assert error.value.errno == errno.EINVAL
        assert time.monotonic() - start < 20
    assert names_in(tmp_path) == before


@pytest.mark.parametrize('write_it', WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize('mask', [0o077, 0o027, 0o022, 0])
def test_modes(tmp_path, write_it, mask):
    """Of the file that is replaced, else what the umask leaves."""

    def function():
        os.umask(mask)
        write_it(tmp_path / 'new')
        assert mode_of(tmp_path / 'new') == 0o666 & ~mask
        for mode in (0o600, 0o640, 0o444, 0o4755):
            os.chmod(tmp_path / 'new', mode)
            write_it(tmp_path / 'new')
            assert mode_of(tmp_path / 'new') == mode & 0o777
        (tmp_path / 'link').symlink_to('new')
        write_it(tmp_path / 'link')  # not the mode of what it points to
        assert mode_of(tmp_path / 'link') == 0o666 & ~mask

    assert in_a_fork(function) == 0


@pytest.mark.skipif(os.getuid() != 0, reason='only root can drop to another')
def test_another_user_is_told_what_is_not_allowed(tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(folder, 0o755)
    closed = tmp_path / 'closed'
    closed.mkdir(mode=0o755)
    write({'a': 1}, closed / 'a.pth')
    (closed / '.a~elsewhere~1.tmp').touch()

    def function():
        with pytest.raises(OSError, match='could not be saved') as error:
            write({'a': 2}, closed / 'a.pth')
        assert error.value.errno == errno.EACCES

    assert in_a_fork(function, NOBODY) == 0
    assert read(closed / 'a.pth') == {'a': 1}
    assert names_in(closed) == ['.a~elsewhere~1.tmp', 'a.pth']


def test_a_guessed_temporary_name_is_of_no_use(tmp_path, monkeypatch):
    """It is new or an error: nobody's file or link is opened."""
    from mmmoco.engine.checkpoint_io import writing

    victim = tmp_path / 'victim'
    victim.write_text('precious')
    monkeypatch.setattr(writing.secrets, 'token_hex', lambda n: 'ab' * n)
    name = f'.a~{writing._HOST}~{os.getpid()}~{"ab" * 8}.tmp'
    for plant in (
        lambda path: path.symlink_to(victim),
        lambda path: os.link(victim, path),
        lambda path: os.mkfifo(path),
    ):
        plant(tmp_path / name)
        with pytest.raises(FileExistsError, match='could not be saved'):
            write_text(tmp_path / 'a', 'new')
        (tmp_path / name).unlink()  # It was not ours to remove.
    assert victim.read_text() == 'precious'
    assert names_in(tmp_path) == ['victim']


def test_two_names_are_never_the_same(tmp_path, monkeypatch):
    seen = set()
    opened = os.open

    def note(path, flags, *rest, **words):
        if str(path).endswith('.tmp'):
            assert flags & os.O_EXCL and flags & os.O_NOFOLLOW
            seen.add(str(path))
        return opened(path, flags, *rest, **words)

    monkeypatch.setattr(os, 'open', note)
    for _ in range(50):
        write_text(tmp_path / 'a', 'new')
    assert len(seen) == 50


def test_leftovers_of_both_names_go_and_nothing_else(tmp_path):
    victim = tmp_path / 'victim'
    victim.write_text('precious')
    gone = {'.a.pth~elsewhere~1.tmp', '.a.pth~elsewhere~1~0123abcd.tmp'}
    for name in gone:
        (tmp_path / name).touch()
    (tmp_path / '.b~elsewhere~1~ab.tmp').mkdir()
    (tmp_path / '.c~elsewhere~1~ab.tmp').symlink_to(victim)
    (tmp_path / '.d~elsewhere~x~ab.tmp').touch()
    assert {path.name for path in remove_leftovers(tmp_path)} == gone
    assert len(names_in(tmp_path)) == 4
    assert victim.read_text() == 'precious'


def test_a_report_shows_only_what_lies_in_the_work_dir(tmp_path):
    """It is passed on: a link would carry a file of the reader along."""
    secret = tmp_path / 'secret'
    secret.write_text('a = "PRIVATE"\n')
    picture = tmp_path / 'picture'
    picture.write_bytes(b'\x89PNG\r\n\x1a\nPRIVATE')
    folder = tmp_path / 'run' / '2026' / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('{"loss": 1, "step": 1}\n')
    run = tmp_path / 'run'
    (folder / 'config.py').symlink_to(secret)
    (run / 'a.py').symlink_to(secret)
    (run / 'views.png').symlink_to(picture)
    (run / 'features.npz').symlink_to(secret)
    (run / 'loop').symlink_to('loop')
    (run / 'results.jsonl').symlink_to('/dev/zero')
    os.mkfifo(run / 'b.py')
    (run.parent / 'environment.json').write_text('{"GPU": "PRIVATE"}')
    (run / '2026' / 'environment.json').symlink_to(
        tmp_path / 'environment.json'
    )
    with open(report([str(run)]), encoding='utf-8') as file:
        page = file.read()
    assert 'PRIVATE' not in page
    assert page.count('lead out of it') == 1
    for name in ('config.py', 'views.png', 'features.npz', 'results.jsonl'):
        assert name in page
    # Links within the work dir are as good as files.
    (run / 'a.py').unlink()
    (run / 'own').write_text('own_setting = 1\n')
    (run / 'a.py').symlink_to('own')
    with open(report([str(run)]), encoding='utf-8') as file:
        assert 'own_setting' in file.read()


def test_the_environment_is_written_beside_no_link(tmp_path):
    victim = tmp_path / 'victim'
    victim.write_text('precious')
    (tmp_path / 'environment.json').symlink_to(victim)
    write_environment(str(tmp_path))
    assert victim.read_text() == 'precious'
    assert '"mmmoco"' in (tmp_path / 'environment.json').read_text()
