"""The ``mmmoco`` command: a subcommand for every job.

Nothing heavy is imported here, so that ``--help`` comes at once.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from mmmoco.version import __version__

from . import cli
from .lookup import nearest


class Command(NamedTuple):
    """Where the job of a subcommand is.

    Attributes:
        room: Folder in ``apis`` whose ``jobs.py`` holds it.
        job: Name of the function.
        positionals: As for :func:`mmmoco.apis.cli.main`.
    """

    room: str
    job: str
    positionals: tuple[str, ...] | None = None

    def load(self) -> Callable[..., Any]:
        """Import the job."""
        jobs = import_module(f'mmmoco.apis.{self.room}.jobs')
        found: Callable[..., Any] = getattr(jobs, self.job)
        return found

    def parser(self, prog: str) -> cli.Parser:
        """Return its command line."""
        return cli.parser_of(self.load(), prog, self.positionals)

    def run(self, argv: Sequence[str], prog: str) -> None:
        """Run the job as a command line says."""
        cli.main(self.load(), argv, prog, self.positionals)


#: A checkpoint comes first, and tells its config if ``--config`` does not.
CHECKPOINT = ('checkpoint',)

#: All subcommands below their headings. To add a job, add its line.
COMMANDS = {
    'train': {
        'pretrain': Command('planning', 'pretrain'),
        'plan': Command('planning', 'plan'),
        'train': Command('training', 'train'),
        'transfer': Command('training', 'transfer'),
        'transfer-config': Command('own_data', 'transfer_config'),
        'verify': Command('preflight', 'verify_config'),
        'memory': Command('preflight', 'estimate_memory'),
        'views': Command('preflight', 'browse_views'),
        'configs': Command('config', 'configs'),
    },
    'evaluate': {
        'knn': Command('probing', 'evaluate_knn', CHECKPOINT),
        'probe': Command('probing', 'linear_probe', CHECKPOINT),
        'svm': Command('probing', 'evaluate_svm', CHECKPOINT),
        'evaluate': Command(
            'probing', 'evaluate_checkpoints', ('checkpoint_dir',)
        ),
        'test': Command('probing', 'test', CHECKPOINT),
        'zero-shot': Command('dense', 'zero_shot_segmentation', CHECKPOINT),
        'similarity': Command('dense', 'similarity', CHECKPOINT),
        'davis': Command('dense', 'davis', ('checkpoint', 'root')),
    },
    'use and look at': {
        'features': Command('probing', 'extract_features', CHECKPOINT),
        'export': Command('exchange', 'export_backbone'),
        'import': Command('exchange', 'import_checkpoint'),
        'convert-config': Command('exchange', 'convert_config'),
        'report': Command('report', 'report'),
        'visualize-similarity': Command(
            'dense', 'visualize_similarity', CHECKPOINT
        ),
        'prompt': Command('page', 'prompt_segmentation'),
    },
    'prepare data': {
        'stats': Command('data', 'dataset_stats'),
        'label-subset': Command('data', 'label_subset'),
        'near-duplicates': Command('probing', 'near_duplicates'),
        'shards': Command('data', 'make_shards'),
        'digits': Command('data', 'make_digit_scenes'),
    },
}

#: What tools and other packages call the same job.
OTHER_NAMES = {
    'embed': 'features',
    'list': 'configs',
    'linear': 'probe',
    'lincls': 'probe',
    'fine-tune': 'transfer',
    'finetune': 'transfer',
    'verify-config': 'verify',
    'segment': 'zero-shot',
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand, or list them."""
    words = list(sys.argv[1:] if argv is None else argv)
    name, *rest = words or ['--help']
    commands = {n: c for group in COMMANDS.values() for n, c in group.items()}
    if name in ('-h', '--help', 'help'):
        if rest and rest[0] in commands:
            commands[rest[0]].run(['--help'], f'mmmoco {rest[0]}')
        sys.stdout.write(overview())
    elif name in ('-V', '--version'):
        sys.stdout.write(f'mmmoco {__version__}\n')
    elif name in commands:
        commands[name].run(rest, f'mmmoco {name}')
    else:
        sys.stderr.write(f'mmmoco: error: {_unknown(name, commands)}\n')
        sys.exit(2)


def overview() -> str:
    """Return all subcommands with what they do."""
    lines = ['usage: mmmoco COMMAND … (mmmoco COMMAND --help)', '']
    for heading, group in COMMANDS.items():
        lines.append(f'{heading}:')
        for name, command in group.items():
            said = inspect.getdoc(command.load()) or ''
            lines.append(f'  {name:21} {said.splitlines()[0]}')
        lines.append('')
    return '\n'.join(lines)


def _unknown(name: str, commands: Mapping[str, Command]) -> str:
    wanted = name.lower().replace('_', '-').removesuffix('.py')
    jobs = {c.job.replace('_', '-'): n for n, c in commands.items()}
    known = dict.fromkeys(commands) | OTHER_NAMES | jobs
    near = nearest(wanted, known)
    if near:
        return f'no command {name!r}; did you mean {known[near] or near}?'
    return f'no command {name!r}; mmmoco --help lists them.'
