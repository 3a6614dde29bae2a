"""The command mmmoco: a subcommand for every job, and what it says early."""

import json
import re
import subprocess
import sys
from argparse import SUPPRESS
from pathlib import Path

import pytest

import mmmoco
from mmmoco import restarts
from mmmoco.apis import command, early_checks
from mmmoco.apis.config.option_values import check_option
from mmmoco.apis.foreign_flags import MEANINGS, translated

ROOT = Path(__file__).parents[2]
COMMANDS = {
    name: each
    for group in command.COMMANDS.values()
    for name, each in group.items()
}
#: Importing them takes longer than anything a command line needs.
HEAVY = ['torch', 'mmcv', 'mmpretrain', 'cv2', 'sklearn', 'matplotlib']
#: Runs command lines in one process; says how each ended, what was heavy
#: and how much CPU it took.
DRIVER = """
import contextlib, io, json, sys, time
from mmmoco.apis import command
for argv in json.loads(sys.argv[1]):
    out, code, begun = io.StringIO(), 0, time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            command.main(argv)
        except SystemExit as stop:
            code = stop.code or 0
    heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    took = time.process_time() - begun
    print(json.dumps([code, out.getvalue(), heavy, took]))
"""


def driven(lines, cwd, heavy=HEAVY):
    done = subprocess.run(
        [sys.executable, '-c', DRIVER, json.dumps(lines), json.dumps(heavy)],
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ends) == len(lines)
    return ends


def parser_of(name):
    return COMMANDS[name].parser(f'mmmoco {name}')


def said(capsys, argv):
    """Return the one line that a wrong command line ends with."""
    with pytest.raises(SystemExit) as stop:
        command.main(argv)
    assert stop.value.code == 2
    given = capsys.readouterr()
    line, *hint = given.err.splitlines()
    assert not given.out
    assert hint in ([], ['(--debug shows where it was raised)'])
    return line


def test_help_imports_nothing_heavy(tmp_path):
    """Of any subcommand; not time, which depends on the machine."""
    lines = [['--help'], [], ['--version'], ['configs', '*v3*']]
    lines += [[name, '--help'] for name in COMMANDS]
    heavy = [*HEAVY, 'mmengine', 'numpy', 'PIL']
    for argv, end in zip(lines, driven(lines, tmp_path, heavy), strict=True):
        code, text, found, took = end
        sys.stdout.write(f'{argv}: {took:.3f} s of CPU\n')
        assert (code, found) == (0, []), argv
        if '--help' in argv:
            assert text.startswith('usage: mmmoco'), argv
            assert 'python tools' not in text


@pytest.mark.parametrize('name', COMMANDS)
def test_every_option_is_explained(name):
    """With its default, where it has one that can be written."""
    parser = parser_of(name)
    for action in parser.arguments:
        if action.help == SUPPRESS or action.default == SUPPRESS:
            continue
        assert action.help, action.dest
        shown = action.default
        if isinstance(shown, bool | None) or shown in ((), '', []):
            continue
        shown = ' '.join(map(str, shown)) if type(shown) is tuple else shown
        assert f'({shown})' in action.help, action.dest


def test_checkpoint_and_config_are_named_alike():
    for name in COMMANDS:
        by_name = {a.dest: a for a in parser_of(name).arguments}
        checkpoint, config = map(by_name.get, ('checkpoint', 'config'))
        if checkpoint:
            assert not checkpoint.option_strings, name
            assert not config or config.option_strings == ['--config'], name
        if 'cfg_options' in by_name and name != 'transfer':
            assert config or 'source' in by_name or 'data' in by_name, name


def misspelt(flag):
    """What fingers make of an option: keys lost, doubled and exchanged."""
    bare = flag[2:]
    at = len(bare) // 2
    yield f'--{bare[:at]}{bare[at:][:1] * 2}{bare[at + 1 :]}'
    if len(bare) > 3:
        yield f'--{bare[:at]}{bare[at + 1 :]}'
        yield f'--{bare[: at - 1]}{bare[at]}{bare[at - 1]}{bare[at + 1 :]}'
    yield f'--{bare.upper()}'
    if '-' in bare:
        yield f'--{bare.replace("-", "_")}'
        yield f'--{bare.replace("-", "")}'


@pytest.mark.parametrize('name', COMMANDS)
def test_a_misspelt_option_is_named(name, capsys):
    parser = parser_of(name)
    known = [f for f in parser.flags if f.startswith('--')]
    seen = 0
    for flag in known:
        for wrong in misspelt(flag):
            if any(other.startswith(wrong) for other in known):
                continue  # The beginning of an option is an option.
            with pytest.raises(SystemExit) as stop:
                parser.parse_args([wrong, 'x'])
            line = capsys.readouterr().err
            assert stop.value.code == 2 and line.count('\n') == 1
            assert f'unrecognized arguments: {wrong} x' in line
            meant = re.search(r'did you mean (--[\w-]+)\?', line)
            assert meant, line
            near = meant[1] in known and (
                meant[1] == flag or len(flag) < 6 or meant[1] in line
            )
            assert near, line
            seen += meant[1] == flag
    assert seen > len(known)


def test_of_several_near_options_the_nearest_is_meant(capsys):
    for wrong, meant in (
        ('--wrok-dir', '--work-dir'),
        ('--cfg-option', None),
        ('--cfg_options', '--cfg-options'),
        ('--max-itres', '--max-iters'),
        ('--lod-from', '--load-from'),
    ):
        if meant:
            line = said(capsys, ['train', 'x', wrong, 'y'])
            assert f'did you mean {meant}?' in line


@pytest.fixture(scope='module')
def configs():
    names = 'mocov2_r50_8xb32', 'mocov3_vit-s_8xb128_300e'
    return [mmmoco.load_config(name) for name in names]


@pytest.mark.parametrize(
    'meaning', MEANINGS, ids=lambda meaning: meaning.theirs
)
def test_the_flags_of_other_tools_are_translated(meaning, configs, capsys):
    """To an option of ours, to a key that our configs have, or to words."""
    flags = {flag for name in COMMANDS for flag in parser_of(name).flags}
    assert meaning.flag or meaning.setting or meaning.remark
    for flag in meaning.theirs.split():
        if flag in parser_of('train').flags:
            continue
        line = said(capsys, ['train', 'demo/mocov2_digits', flag, '7'])
        if meaning.flag in parser_of('train').flags:
            assert f'did you mean {meaning.flag}?' in line
        elif meaning.setting:
            key, _, value = meaning.setting.partition('=')
            assert f'--cfg-options {key}={value or 7}' in line
            fits = 0
            for cfg in configs:
                try:
                    check_option(cfg, key, value or 7)
                except KeyError:
                    continue  # The other method has it.
                except ValueError:
                    pass  # Not as a number.
                fits += 1
            assert fits, key
        else:
            assert meaning.remark in line or 'did you mean' in line
    told = translated(meaning.theirs.split()[0], '7', flags, False)
    assert told is None or 'cfg-options' not in told


def test_an_evaluation_takes_no_settings_of_a_training(capsys):
    line = said(capsys, ['knn', 'x.pth', '--lr', '0.1'])
    assert 'optim_wrapper' not in line


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['knnn'], "no command 'knnn'; did you mean knn?"),
        (['linear_probe'], 'did you mean probe?'),
        (['train.py'], 'did you mean train?'),
        (['export_backbone.py'], 'did you mean export?'),
        (['embed'], 'did you mean features?'),
        (['davis_seg'], 'did you mean davis?'),
        (['qwertz'], 'mmmoco --help lists them'),
    ],
)
def test_a_command_that_is_none(argv, words, capsys):
    assert words in said(capsys, argv)


OUT_OF_RANGE = [
    *[
        (name, str(value), f'{value}: must be at least')
        for name in ('image-size', 'batch-size', 'queue', 'epochs', 'gpus')
        for value in (0, -1)
    ],
    ('seed', '-1', '-1: must be at least'),
    *[
        (name, str(10**20), f'{10**20}: at most')
        for name in ('image-size', 'batch-size', 'queue', 'epochs', 'gpus')
    ],
    ('seed', '4294967296', '4294967296: at most'),
    *[
        (name, value, f'{value}: ')
        for name in ('lr', 'hours', 'm')
        for value in ('0.0', '1e+20', 'nan', 'inf')
    ],
]


def test_what_can_be_said_at_once_is_said_before_torch_is_imported(tmp_path):
    """Paths, missing values and unknown options, of any command."""
    for name in ('data/imagenet/train', 'runs'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('runs/epoch_9.pth', 'mine.py'):
        (tmp_path / name).touch()
    root = 'train_dataloader.dataset.data_root'
    cases = {
        'train mocov2_r50_8xb33': 'mocov2_r50_8xb32',
        'train mmdett::x.py': 'mmdett::',
        'verify nowhere.py': "'nowhere.py'",
        'train demo/mocov2_digits --load-from runs/epoch_8.pth': (
            "did you mean 'runs/epoch_9.pth'?"
        ),
        'train demo/mocov2_digits --resume run/epoch_9.pth': (
            "did you mean 'runs/epoch_9.pth'?"
        ),
        'export runs/epoch9.pth out --to timm': "mean 'runs/epoch_9.pth'?",
        f'train mocov2_r50_8xb32 --cfg-options {root}=data/imagnet': (
            f"{root}: 'data/imagnet' does not exist; did you mean "
            "'data/imagenet'?"
        ),
        f'train mocov2_r50_8xb32 --cfg-options {root}={tmp_path}/a/b/c': (
            f"'{tmp_path}' does."
        ),
        f'train mocov2_r50_8xb32 --cfg-options {root}': 'is not KEY=VALUE',
        f'train mocov2_r50_8xb32 {root}=data': 'stands behind --cfg-options',
        'train mocov2_r50_8xb32 lr=0.1': 'optim_wrapper.optimizer.lr=0.1',
        'knn gone.pth --config demo/mocov2_digits': "'gone.pth' does not",
        'knn runs/epoch_9.pth --config demo/x': "no config 'demo/x'",
        'stats data/imagenett': "did you mean 'data/imagenet'?",
        'stats demo/mocov2_digitz': "'demo/mocov2_digitz' does not exist",
        'label-subset gone --percent 1 --out x': "'gone'",
        'report runs gone': "'gone' does not exist",
        'train demo/mocov2_digits --seed one': 'invalid int value',
        'train demo/mocov2_digits --schedule fat': "choose from 'keep', 'fit'",
        'knn data runs/epoch_9.pth': 'the folder after --data',
        'features data/imagenet --out f.npz': 'the folder after --data',
        'knn runs --data data': 'such as runs/epoch_9.pth',
        'export out runs/epoch_9.pth': 'The checkpoint comes first.',
        'export data out': "'data' is a folder; the checkpoint comes first.",
        'probe mine.py --data data': 'a config stands after --config',
        'knn runs/epoch_9.pth': 'A checkpoint names no images',
        'knn runs/epoch_9.pth --data data --k 9 0': 'must be at least 1',
        'knn runs/epoch_9.pth --data runs/epoch_9.pth': 'is a file',
        'plan runs/epoch_9.pth': "'runs/epoch_9.pth' is a file",
        'evaluate runs/epoch_9.pth --data data': 'is a file',
        'features runs/epoch_9.pth --data data --out f.csv': 'f.csv: give',
        'import runs/epoch_9.pth x.npz': 'x.npz: give a name that ends in',
        'convert-config mine.py x': 'ends in .py',
        'pretrain data --hours -1': '--hours -1.0: must be above 0',
        'pretrain data --lr nan': '--lr nan: must be above 0',
        **{
            f'plan data --{name} {value}': f'--{name} {said}'
            for name, value, said in OUT_OF_RANGE
        },
        'train': 'required: config',
        'train demo/mocov2_digits x': 'unrecognized arguments: x',
    }
    lines = [case.split() for case in cases]
    ends = driven(lines, tmp_path)
    for (case, words), end in zip(cases.items(), ends, strict=True):
        code, text, heavy, took = end
        sys.stdout.write(f'{took:.2f} s  {case}\n        {text}')
        assert code == 2 and words in text, (case, text)
        assert heavy == [], case
        assert len(text.splitlines()) <= 2
    assert max(took for *_, took in ends) < 1


@pytest.mark.parametrize(
    'options',
    [
        {'knn.bank.dataset.data_root': 's3://bucket/images'},
        {'train_dataloader.dataset.data_root': '/gone/{a,b}.tar'},
        {'train_dataloader.dataset.data_root': ''},
        {
            'train_dataloader.dataset.data_root': 'new',
            'train_dataloader.dataset.type': 'mmpretrain.CIFAR10',
        },
        {'model.init_cfg': 'gone'},
    ],
)
def test_what_may_be_right_is_not_refused(options, tmp_path, monkeypatch):
    """URLs, patterns, and what a data set fetches."""
    monkeypatch.chdir(tmp_path)
    given = {'config': 'mocov2_r50_8xb32', 'cfg_options': options}
    early_checks.require_places(given)


def test_a_config_whose_data_fetches_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('base.py').write_text("d = dict(type='mmpretrain.CIFAR10')\n")
    Path('mine.py').write_text("_base_ = ['base.py', 'base.py', 'no.py']\n")
    Path('other.py').write_text("_base_ = ['mmmoco::mocov2_r50_8xb32.py']\n")
    options = {'train_dataloader.dataset.data_root': 'data/cifar10'}
    given = {'cfg_options': options}
    early_checks.require_places(given | {'config': 'mine.py'})
    with pytest.raises(FileNotFoundError, match='data/cifar10'):
        early_checks.require_places(given | {'config': 'other.py'})


@pytest.mark.parametrize(
    ('config', 'options', 'said'),
    [
        ('mocov2_r50_8xb32', {}, "its data_root 'data/imagenet'"),
        ('mine.py', {}, "its data_root 'photos'"),
        ('mine.py', {'train_dataloader.dataset.data_root': 'here'}, ''),
        ('mine.py', {'train_dataloader.dataset.type': 'Mine'}, ''),
        ('two.py', {}, ''),  # Which one is read, the text does not tell.
        ('demo/mocov2_digits', {}, ''),
    ],
)
def test_data_of_a_config_that_are_not_there(
    config, options, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path('here').mkdir()
    Path('mine.py').write_text("d = dict(data_root='photos')\n")
    Path('two.py').write_text("_base_ = 'mine.py'\nx = dict(data_root='b')\n")
    given = dict(config=config, cfg_options=options)
    early_checks.require_places(given)  # Not read by every job.
    given['max_iters'] = None
    if said:
        with pytest.raises(FileNotFoundError, match=said):
            early_checks.require_places(given)
    else:
        early_checks.require_places(given)


def test_a_positional_has_no_flag():
    for positionals, said in ((['data'], "'gone'"), ([], "--data: 'gone'")):
        with pytest.raises(FileNotFoundError, match=f'^{said}'):
            early_checks.require_places({'data': 'gone'}, positionals)


def test_a_run_that_is_started_again_needs_no_first_checkpoint(
    tmp_path, monkeypatch
):
    """Its scheduler repeats the command after the file may be gone."""
    monkeypatch.chdir(tmp_path)
    given = dict(config='demo/mocov2_digits', load_from='gone.pth')
    with pytest.raises(FileNotFoundError, match=r'--load-from: .gone\.pth'):
        early_checks.require_places(given)
    for name in restarts.RESTART_COUNTS:
        monkeypatch.setenv(name, '1')
        early_checks.require_places(given)
        monkeypatch.setenv(name, '0')
    run = Path('work_dirs/mocov2_digits')
    run.mkdir(parents=True)
    (run / restarts.MARKER).touch()
    early_checks.require_places(given)
    with pytest.raises(FileNotFoundError, match='gone'):
        early_checks.require_places(given | {'work_dir': str(tmp_path)})


def test_an_optional_positional_may_stand_behind_an_option(tmp_path):
    found = parser_of('similarity').parse_args(['--limit', '3', 'x.pth'])
    assert (found.checkpoint, found.limit) == ('x.pth', 3)
    assert parser_of('similarity').parse_args([]).checkpoint is None


def test_every_job_is_a_command_and_every_tool_one_of_them():
    jobs = {each.job for each in COMMANDS.values()}
    later = {'TrainStep', 'get_model', 'list_configs', 'load_config'}
    assert {*mmmoco.__all__} - later - {'__version__'} <= jobs
    for path in (ROOT / 'tools').glob('*.py'):
        called = re.search(r'cli\.main\(\s*(\w+)', path.read_text())[1]
        assert called in jobs, path.name


def test_the_page_names_every_subcommand_and_what_it_shows():
    """Its messages are those that are given."""
    page = (ROOT / 'docs' / 'command.md').read_text()
    assert not [name for name in COMMANDS if f'`{name}`' not in page]
    for theirs, key in re.findall(r'\| `(-[-\w]+)`.*\| `([\w.=]+)`', page):
        told = translated(theirs, None, [], True)
        assert told and key.partition('=')[0] in told


def test_a_subcommand_does_what_the_tool_does(capsys, tmp_path, monkeypatch):
    """Here of the shortest job, and as ``python -m mmmoco``."""
    monkeypatch.chdir(tmp_path)
    command.main(['digits', 'scenes', '--num-train', '2', '--num-val', '1'])
    capsys.readouterr()
    assert len(list((tmp_path / 'scenes').rglob('*.jpg'))) > 2
    line = said(capsys, ['digits', 'scenes', '--num-train', '2'])
    assert line.startswith('mmmoco digits: error: ')
    done = subprocess.run(
        [sys.executable, '-m', 'mmmoco', 'configs', 'demo/*'],
        capture_output=True,
        text=True,
        env={'PYTHONPATH': str(ROOT)},
    )
    assert 'demo/mocov2_digits\n' in done.stdout, done.stderr


#: A wheel without its extras: the packages of OpenMMLab are not there.
BARE = """
import contextlib, io, sys
from importlib.machinery import PathFinder
real = PathFinder.find_spec
gone = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg')
def find_spec(name, path=None, target=None):
    if name.partition('.')[0] not in gone:
        return real(name, path, target)
PathFinder.find_spec = find_spec
import mmmoco
from mmmoco.apis import command
assert mmmoco.list_configs('*digits') and 'train' in dir(mmmoco)
calls = [lambda n=n: getattr(mmmoco, n) for n in ('get_model', 'TrainStep')]
calls += [lambda n=n: getattr(mmmoco, n) for n in ('load_config', 'models')]
calls += [lambda: mmmoco.train('demo/mocov2_digits')]
calls += [lambda: mmmoco.report('.')]
calls += [lambda: mmmoco.make_shards('a', 'b')]
for call in calls:
    try:
        call()
    except ImportError as error:
        print(error)
for argv in (['train', 'demo/mocov2_digits'], ['report', '.']):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            command.main(argv)
        except SystemExit as stop:
            assert stop.code == 2
    print(said.getvalue().splitlines()[0])
"""


def test_without_openmmlab_both_lines_are_named(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', BARE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 9, done.stderr
    for line in lines:
        assert 'mmengine, mmcv, mmpretrain are not installed' in line
        assert 'pip install onedl-mmengine onedl-mmcv onedl-mm' in line
        assert 'pip install mmengine mmcv mmpretrain' in line
    assert lines[-1].startswith('mmmoco report: error: ')
