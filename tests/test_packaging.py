"""What a wheel carries, what is pinned, and the scripts around both."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmmoco.openmmlab import DISTRIBUTIONS

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [*sorted((ROOT / 'tools').glob('*.sh')), ROOT / '.ci' / 'run']
CHECKOUT_ONLY = {
    'setup.sh',
    'quickstart.sh',
    'run_tests.sh',
    'test_matrix.sh',
}
STACKS = sorted((ROOT / 'requirements' / 'stacks').glob('*.txt'))


def run(*command, cwd=ROOT, **env):
    """Runs a command in a clean environment; nothing is checked."""
    kept = {'PATH': os.environ['PATH'], 'HOME': os.environ.get('HOME', '/')}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | env,
        capture_output=True,
        text=True,
        timeout=300,
    )


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def checkout_copy(place):
    """Copies what a build reads, so that nothing is left in the checkout."""
    place.mkdir()
    for name in (
        'setup.py',
        'pyproject.toml',
        'MANIFEST.in',
        'LICENSE',
        'model-index.yml',
    ):
        shutil.copy(ROOT / name, place)
    for name in ('README.md', 'CHANGELOG.md'):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, place)
    ignore = shutil.ignore_patterns('__pycache__', '.mim')
    for name in ('mmmoco', 'configs', 'tools', 'projects', 'requirements'):
        shutil.copytree(ROOT / name, place / name, ignore=ignore)
    (place / 'tests').mkdir()
    (place / 'tests' / '__init__.py').touch()
    return place


def build(source, hook, out):
    """Calls one hook of setuptools' build backend, as pip does."""
    out.mkdir()
    return run(
        sys.executable,
        '-c',
        'import sys, setuptools.build_meta as b;'
        f'print(b.__legacy__.{hook}(sys.argv[1]))',
        out,
        cwd=source,
    )


def relative_files(folder):
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


@pytest.fixture(scope='module')
def pins():
    text = (ROOT / 'requirements' / 'constraints.txt').read_text()
    found = {}
    for line in text.splitlines():
        line = line.split('#')[0].strip()
        if line:
            match = re.fullmatch(r'([a-z0-9-]+)==([0-9][0-9a-z.]*)', line)
            assert match, f'not a plain pin: {line}'
            assert match[1] not in found, f'pinned twice: {match[1]}'
            found[match[1]] = match[2]
    return found


LINES = {'onedl', 'onedl-det', 'onedl-seg', 'openmmlab'}
OPENMMLAB = {name for names in DISTRIBUTIONS.values() for name in names}


def needs_by_extra(path):
    """Read what a package needs; '': always."""
    found, extra = {'': []}, ''
    for line in path.read_text().splitlines():
        if line.startswith('['):
            extra = line.strip('[]')
            found[extra] = []
        elif line:
            found[extra].append(Requirement(line))
    return found


def test_every_requirement_is_pinned_to_a_version_it_allows(pins, tmp_path):
    source = checkout_copy(tmp_path / 'source')
    done = run(sys.executable, 'setup.py', '-q', 'egg_info', cwd=source)
    assert done.returncode == 0, done.stderr
    needed = needs_by_extra(source / 'mmmoco.egg-info' / 'requires.txt')
    # Who pulls OpenMMLab names its line; `all` is no line.
    for extra, needs in needed.items():
        lines = {
            'onedl' if need.name.startswith('onedl-') else 'openmmlab'
            for need in needs
            if need.name in OPENMMLAB
        }
        assert lines == (
            {extra.partition('-')[0]} if extra in LINES else set()
        )
    del needed['openmmlab']  # Not what the set-up installs.
    needs = sum(needed.values(), [])
    assert len(needs) > 10
    for need in needs:
        name = canonicalize_name(need.name)
        assert name in pins, f'{name} is not in constraints.txt'
        assert need.specifier.contains(pins[name]), (need, pins[name])


@pytest.mark.parametrize('stack', STACKS, ids=lambda path: path.stem)
def test_an_installation_moves_nothing_of_a_stack(stack, tmp_path):
    """The whole is tried by tools/test_matrix.sh."""
    first, *lines = stack.read_text().splitlines()
    assert re.match(r'# Python 3\.\d+: ', first)
    source = checkout_copy(tmp_path / 'source')
    run(sys.executable, 'setup.py', '-q', 'egg_info', cwd=source)
    needed = needs_by_extra(source / 'mmmoco.egg-info' / 'requires.txt')
    allowed = {need.name: need.specifier for need in needed['']}
    pinned = dict(line.split('==') for line in lines if '==' in line)
    for name in allowed.keys() & pinned.keys():
        assert allowed[name].contains(pinned[name])
    assert {'torch', 'torchvision', 'numpy'} <= {*lines, *pinned}


@pytest.mark.skipif(
    os.environ.get('MMMOCO_FULL') != '1'
    and not Path(sys.prefix, '.mmmoco-mmcv').is_file(),
    reason='the pins are those of what tools/setup.sh makes',
)
def test_what_is_installed_has_the_pinned_version(pins):
    from importlib.metadata import distributions

    # setuptools puts copies of its own on the path once it is imported.
    site = [sysconfig.get_paths()['purelib']]
    installed = {
        canonicalize_name(dist.metadata['Name']): dist.version
        for dist in distributions(path=site)
    }
    differing = {
        name: (version.split('+')[0], pins[name])
        for name, version in installed.items()
        if name in pins and version.split('+')[0] != pins[name]
    }
    assert not differing


@pytest.mark.slow
def test_a_wheel_carries_the_package_with_configs_and_tools(tmp_path):
    source = checkout_copy(tmp_path / 'source')
    # A config of an earlier build that the checkout no longer has.
    stale = source / 'build' / 'lib' / 'mmmoco' / '.mim' / 'configs' / 'x.py'
    stale.parent.mkdir(parents=True)
    stale.touch()
    done = build(source, 'build_wheel', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / 'out').glob('mmmoco-*.whl')
    names = set(zipfile.ZipFile(wheel).namelist())

    tops = {name.split('/')[0] for name in names}
    assert {top for top in tops if not top.endswith('.dist-info')} == {
        'mmmoco'
    }
    mim = {
        name.removeprefix('mmmoco/.mim/')
        for name in names
        if name.startswith('mmmoco/.mim/')
    }
    expected = relative_files('configs') | {
        name
        for name in relative_files('tools')
        if Path(name).name not in CHECKOUT_ONLY
    }
    assert mim == expected | {'model-index.yml'}
    kinds = (
        '.py',
        '.html',
        '.css',
        '.jinja',
    )  # Pages are made from templates.
    assert {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / 'mmmoco').rglob('*')
        if '.mim' not in path.parts and path.suffix in kinds
    } == {
        name for name in names if name.endswith(kinds) and '/.mim/' not in name
    }
    assert any(name.endswith('licenses/LICENSE') for name in names)
    (entry,) = (name for name in names if name.endswith('entry_points.txt'))
    scripts = zipfile.ZipFile(wheel).read(entry).decode().split()
    assert scripts[-3:] == ['mmmoco', '=', 'mmmoco.apis.command:main']


@pytest.mark.slow
def test_an_sdist_can_be_built_into_the_same_wheel(tmp_path):
    source = checkout_copy(tmp_path / 'source')
    done = build(source, 'build_sdist', tmp_path / 'sdist')
    assert done.returncode == 0, done.stderr
    (archive,) = (tmp_path / 'sdist').glob('mmmoco-*.tar.gz')
    shutil.unpack_archive(archive, tmp_path / 'unpacked')
    (unpacked,) = (tmp_path / 'unpacked').iterdir()
    assert (unpacked / 'projects' / 'byol' / 'byol.py').is_file()
    contents = []
    for place, out in ((source, 'a'), (unpacked, 'b')):
        done = build(place, 'build_wheel', tmp_path / out)
        assert done.returncode == 0, done.stderr
        (wheel,) = (tmp_path / out).glob('mmmoco-*.whl')
        contents.append(set(zipfile.ZipFile(wheel).namelist()))
    assert contents[0] == contents[1]
    assert not [name for name in contents[0] if 'byol' in name]


def test_an_editable_build_links_configs_and_tools(tmp_path):
    source = checkout_copy(tmp_path / 'source')
    # Copies that something else left there make way for the links.
    (source / 'mmmoco' / '.mim' / 'configs').mkdir(parents=True)
    done = build(source, 'build_editable', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    for name in ('configs', 'tools', 'model-index.yml'):
        place = source / 'mmmoco' / '.mim' / name
        assert place.is_symlink()
        assert not Path(os.readlink(place)).is_absolute()
        assert place.resolve() == (source / name).resolve()


def test_mim_finds_the_models_and_their_configs():
    import yaml

    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    models = [
        model
        for path in index['Import']
        for model in yaml.safe_load((ROOT / path).read_text())['Models']
    ]
    assert len(models) > 10
    for model in models:
        assert (ROOT / model['Config']).is_file(), model


def test_a_build_without_configs_is_an_error(tmp_path):
    source = checkout_copy(tmp_path / 'source')
    shutil.rmtree(source / 'configs')
    done = build(source, 'build_wheel', tmp_path / 'out')
    assert done.returncode != 0
    assert 'configs holds no file' in done.stderr
    assert not list((tmp_path / 'out').glob('*.whl'))


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_bash(script):
    done = run('bash', '-n', script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ('script', 'arguments', 'names'),
    [
        ('dist_train.sh', [], 'CONFIG GPUS'),
        ('dist_train.sh', ['c.py'], 'CONFIG GPUS'),
        ('dist_train.sh', ['c.py', 'two'], "GPUS .* not 'two'"),
        ('dist_train.sh', ['c.py', '0'], "GPUS .* not '0'"),
        ('dist_test.sh', ['c.py', '2'], 'CONFIG CHECKPOINT GPUS'),
        ('dist_test.sh', ['c.py', 'x.pth', 'x'], "GPUS .* not 'x'"),
        ('slurm_train.sh', ['part', 'job'], 'PARTITION JOB_NAME CONFIG'),
        ('transfer.sh', ['x.pth'], 'CKPT TASK'),
        ('transfer.sh', ['x.pth', 'voc-seg', '0'], "GPUS .* not '0'"),
        ('setup.sh', [], r'core\|full'),
        ('setup.sh', ['all'], "'all'"),
        ('test_matrix.sh', ['none'], "'none'.*newest"),
    ],
)
def test_a_wrong_call_ends_with_one_line(script, arguments, names):
    done = run('bash', f'tools/{script}', *arguments)
    assert done.returncode == 2
    assert not done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert re.search(names, done.stderr)


@pytest.mark.parametrize(
    'script',
    [
        'dist_train.sh',
        'dist_test.sh',
        'slurm_train.sh',
        'setup.sh',
        'test_matrix.sh',
        'transfer.sh',
    ],
)
def test_scripts_explain_themselves(script, tmp_path):
    done = run('bash', ROOT / 'tools' / script, '--help', cwd=tmp_path)
    assert done.returncode == 0
    assert f'bash tools/{script}' in done.stdout
    assert 'set -' not in done.stdout


@pytest.fixture
def echo_environment(tmp_path):
    """An active environment whose Python prints what it was called with."""
    home = tmp_path / 'an environment'
    executable(
        home / 'bin' / 'python',
        '#!/bin/bash\n[[ $1 == -c && $2 != *torch* ]] && echo 12345 && exit\n'
        'printf "%s\\n" "OMP=${OMP_NUM_THREADS:-}" "$@"\n',
    )
    return str(home)


def test_dist_train_starts_one_process_per_gpu(echo_environment, tmp_path):
    # A checkout in a folder with a space, called from elsewhere.
    tools = tmp_path / 'my work' / 'tools'
    shutil.copytree(ROOT / 'tools', tools)
    executable(tmp_path / 'bin' / 'nvidia-smi', '#!/bin/sh\nexit 1\n')
    done = run(
        'bash',
        tools / 'dist_train.sh',
        'my config.py',
        '2',
        '--work-dir',
        'a b',
        cwd=tmp_path,
        VIRTUAL_ENV=echo_environment,
        PATH=f'{tmp_path}/bin:{os.environ["PATH"]}',
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        'OMP=1',
        '-c',
        'import sys; sys.path = [p for p in sys.path if p]',
        "import runpy; runpy.run_module('torch.distributed.run', {}, "
        "'__main__', True)",
        '--nnodes=1',
        '--max-restarts=0',
        '--rdzv-backend=c10d',
        '--rdzv-id=mmmoco',
        f'--rdzv-endpoint={meeting_in(done.stdout)}/torchrun',
        '--local-addr=127.0.0.1',
        '--rdzv-conf=store_type=file,keep_alive_interval=3600',
        '--nproc_per_node=2',
        str(tools / 'train.py'),
        'my config.py',
        '--launcher',
        'pytorch',
        '--work-dir',
        'a b',
    ]
    # Private to this user, and removed.
    assert not Path(meeting_in(done.stdout)).exists()


def meeting_in(text):
    return re.search(r'endpoint=(.+)/torchrun', text)[1]


def test_dist_test_honours_the_cluster_settings(echo_environment):
    done = run(
        'bash',
        'tools/dist_test.sh',
        'c.py',
        'x.pth',
        '8',
        VIRTUAL_ENV=echo_environment,
        NNODES='2',
        NODE_RANK='1',
        MASTER_ADDR='10.0.0.1',
        RDZV_ID='ours',
    )
    lines = done.stdout.splitlines()
    assert {
        '--nnodes=2',
        '--rdzv-id=ours',
        '--node_rank=1',
        '--master_addr=10.0.0.1',
        '--master_port=29500',
        '--nproc_per_node=8',
    } <= set(lines)
    assert lines[-5:] == [
        str(ROOT / 'tools' / 'test.py'),
        'c.py',
        'x.pth',
        '--launcher',
        'pytorch',
    ]


@pytest.mark.parametrize('lacking', ['RDZV_ID', 'MASTER_ADDR'])
def test_several_machines_must_name_their_run(echo_environment, lacking):
    """Whoever guesses the name can join, so there is no default."""
    known = {'MASTER_ADDR': '10.0.0.1', 'RDZV_ID': 'ours', lacking: ''}
    done = run(
        *('bash', 'tools/dist_train.sh', 'c.py', '8'),
        VIRTUAL_ENV=echo_environment,
        NNODES='2',
        **known,
    )
    assert done.returncode == 2 and done.stdout == ''
    assert f'NNODES=2 needs {lacking}' in done.stderr


def test_slurm_train_passes_everything_to_srun(echo_environment, tmp_path):
    srun = executable(
        tmp_path / 'bin' / 'srun', '#!/bin/sh\nprintf "%s\\n" "$@"\n'
    )
    done = run(
        'bash',
        'tools/slurm_train.sh',
        'gpu',
        'my job',
        'c.py',
        '--amp',
        VIRTUAL_ENV=echo_environment,
        GPUS='4',
        SRUN_ARGS='--mem=64G --exclusive',
        PATH=f'{srun.parent}:{os.environ["PATH"]}',
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        '--partition=gpu',
        '--job-name=my job',
        '--gres=gpu:4',
        '--ntasks=4',
        '--ntasks-per-node=4',
        '--cpus-per-task=5',
        '--kill-on-bad-exit=1',
        '--mem=64G',
        '--exclusive',
        f'{echo_environment}/bin/python',
        '-u',
        str(ROOT / 'tools' / 'train.py'),
        'c.py',
        '--launcher',
        'slurm',
        '--amp',
    ]


def disk(gigabytes, bin_dir):
    """A ``df`` to put first in PATH: so much is free."""
    return executable(
        bin_dir / 'df',
        f'#!/bin/sh\necho head\necho disk 9 9 {gigabytes << 20} 9 /\n',
    ).parent


@pytest.fixture
def bare_checkout(tmp_path, monkeypatch):
    """What tools/setup.sh reads, without an environment, on a large disk."""
    place = tmp_path / 'a checkout'
    large = disk(99, tmp_path / 'large')
    monkeypatch.setenv('PATH', f'{large}:{os.environ["PATH"]}')
    shutil.copytree(ROOT / 'requirements', place / 'requirements')
    for name in ('tools/setup.sh', 'setup.py'):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)
    return place


def test_setup_says_when_the_disk_is_too_small(bare_checkout, tmp_path):
    small = disk(3, tmp_path / 'small')
    done = run(
        'bash',
        bare_checkout / 'tools' / 'setup.sh',
        'core',
        MMMOCO_CACHE=str(tmp_path / 'cache'),
        PATH=f'{small}:{os.environ["PATH"]}',
    )
    assert done.returncode == 1
    assert re.search('has 3 GB free, the set-up .*needs 9 GB', done.stderr)
    assert not (bare_checkout / '.venv').exists()


def test_setup_says_when_python_does_not_fit(bare_checkout, tmp_path):
    old = executable(tmp_path / 'python3.9', '#!/bin/sh\nexit 1\n')
    done = run(
        'bash',
        bare_checkout / 'tools' / 'setup.sh',
        'core',
        MMMOCO_CACHE=str(tmp_path / 'cache'),
        MMMOCO_PYTHON=str(old),
    )
    assert done.returncode == 1
    assert f'{old} is no working Python 3.11 or 3.12' in done.stderr


@pytest.mark.parametrize('user', ['0', '1000'])
def test_setup_installs_or_names_missing_system_packages(
    bare_checkout, tmp_path, user
):
    """A Python of Debian without its package for virtual environments."""
    bin_dir, calls = tmp_path / 'bin', tmp_path / 'calls'
    base = executable(
        bin_dir / 'python3.11',
        '#!/bin/bash\n'
        f'echo "python $*" >>"{calls}"\n'
        'case $* in\n'
        '  *ensurepip*) exit 1 ;;\n'
        '  *print*) echo 3.11 ;;\n'
        '  -m\\ venv*) exit 7 ;;\n'
        'esac\n',
    )
    executable(bin_dir / 'id', f'#!/bin/sh\necho {user}\n')
    executable(
        bin_dir / 'apt-get', f'#!/bin/sh\necho "apt-get $*" >>"{calls}"\n'
    )
    done = run(
        'bash',
        bare_checkout / 'tools' / 'setup.sh',
        'core',
        MMMOCO_CACHE=str(tmp_path / 'cache'),
        MMMOCO_PYTHON=str(base),
        PATH=f'{bin_dir}:{os.environ["PATH"]}',
    )
    assert done.returncode == 1
    log = calls.read_text()
    if user == '0':
        install = 'apt-get install -y --no-install-recommends python3.11-venv'
        assert log.index('apt-get update') < log.index(install)
        assert log.index(install) < log.index('python -m venv')
    else:
        assert 'apt-get' not in log
        assert 'are missing: python3.11-venv' in done.stderr
        assert 'sudo apt-get install' in done.stderr


def test_setup_needs_an_active_environment_when_told_to_use_it(bare_checkout):
    done = run(
        'bash',
        bare_checkout / 'tools' / 'setup.sh',
        'core',
        MMMOCO_USE_ACTIVE='1',
    )
    assert done.returncode == 1
    assert 'no virtual environment is active' in done.stderr


def test_a_failing_step_shows_the_log_and_what_to_do(bare_checkout, tmp_path):
    fake = executable(
        tmp_path / 'env' / 'bin' / 'python',
        '#!/bin/bash\n[[ "$*" == *"pip install"* ]] || exit 0\n'
        'echo no route to the index >&2; exit 3\n',
    )
    done = run(
        'bash',
        bare_checkout / 'tools' / 'setup.sh',
        'core',
        MMMOCO_CACHE=str(tmp_path / 'cache'),
        MMMOCO_USE_ACTIVE='1',
        VIRTUAL_ENV=str(fake.parents[1]),
    )
    assert done.returncode == 1
    assert 'no route to the index' in done.stdout
    assert '"Install the build tools" failed' in done.stderr
    assert 'check the network' in done.stderr
    assert not list(fake.parents[1].glob('.mmmoco-setup-*'))


@pytest.mark.parametrize(
    ('codes', 'expected'),
    [
        ('0 0', 0),
        ('0 5', 0),  # 5: no test was chosen.
        ('5 0', 0),
        ('5 5', 5),
        ('1 0', 1),
        ('5 2', 2),
        ('1 2', 1),
    ],
)
def test_all_parts_of_the_tests_run_and_the_first_failure_decides(
    tmp_path, codes, expected
):
    tools, log = tmp_path / 'tools', tmp_path / 'log'
    tools.mkdir()
    shutil.copy(ROOT / 'tools' / 'run_tests.sh', tools)
    together, alone = codes.split()
    python = executable(
        tmp_path / 'python',
        '#!/bin/bash\n[[ $1 != -c ]] || exit 1\n[[ $2 == pytest ]] || exit 0\n'
        f'echo "$MMMOCO_FULL $*" >>"{log}"\n'
        f'[[ "$*" == *together* ]] && exit {together}\nexit {alone}\n',
    )
    (tools / 'setup.sh').write_text(f'[[ $1 == full ]] || echo "{python}"')
    done = run('bash', tools / 'run_tests.sh', '-k', 'a or b')
    assert done.returncode == expected, done.stderr
    first, second = log.read_text().splitlines()
    assert '--part together -n 2' in first and '--part alone' in second
    for line in (first, second):
        assert line.startswith('1 -m pytest') and '-k a or b' in line


@pytest.mark.parametrize('name', ['run_tests', 'quickstart'])
def test_help_sets_nothing_up(name, tmp_path):
    """Whoever asks what a script does does not want it done."""
    tools = tmp_path / 'tools'
    tools.mkdir()
    shutil.copy(ROOT / f'tools/{name}.sh', tools)
    (tools / 'setup.sh').write_text('touch "$0.called"; exit 1')
    done = subprocess.run(
        ['bash', str(tools / f'{name}.sh'), '--help'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and f'tools/{name}.sh' in done.stdout
    assert not (tools / 'setup.sh.called').exists()


def test_ops_are_compiled_without_symbols_unless_one_asks(
    bare_checkout, tmp_path
):
    """They take more than half of the time, and change no code."""
    seen = tmp_path / 'seen'
    fake = executable(
        tmp_path / 'env' / 'bin' / 'python',
        '#!/bin/bash\n[[ "$*" == *"pip wheel"* ]] || exit 0\n'
        f'echo "$CPPFLAGS|$CFLAGS" >"{seen}"; exit 3\n',
    )
    done = run(
        'bash',
        bare_checkout / 'tools' / 'setup.sh',
        'full',
        MMMOCO_CACHE=str(tmp_path / 'cache'),
        MMMOCO_USE_ACTIVE='1',
        VIRTUAL_ENV=str(fake.parents[1]),
        CXX='sh',
        CPPFLAGS='-g',
    )
    assert done.returncode == 1
    assert "Compile mmcv's ops" in done.stdout
    # The last flag counts.
    assert seen.read_text() == '-g0 -g|\n'


def test_flags_for_the_ops_are_added_to_those_of_python():
    """Torch compiles with these; without them nothing is optimised."""
    script = (
        'import setuptools\n'
        'from distutils.ccompiler import new_compiler\n'
        'from distutils.sysconfig import customize_compiler\n'
        'compiler = new_compiler()\n'
        'customize_compiler(compiler)\n'
        'print(*compiler.compiler_so)\n'
    )
    without, added = (
        run(sys.executable, '-c', script, CPPFLAGS=flags).stdout.split()
        for flags in ('', '-g0')
    )
    assert [flag for flag in added if flag != '-g0'] == without
    assert '-g' not in added[added.index('-g0') :]


def test_the_matrix_says_what_it_does_not_run(tmp_path):
    for name in ('tools', 'requirements'):
        shutil.copytree(ROOT / name, tmp_path / name)
    done = run(
        *('bash', tmp_path / 'tools' / 'test_matrix.sh', STACKS[0].stem),
        **{f'MMMOCO_PYTHON_3{n}': '/not/there' for n in range(10, 30)},
    )
    assert done.returncode == 0, done.stderr
    header, rule, row = done.stdout.splitlines()
    assert row.startswith(f'| {STACKS[0].stem} | not run: /not/there is no')
    assert header.count('|') == rule.count('|') == row.count('|')
