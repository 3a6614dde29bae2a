"""Evaluate many checkpoints: see ``--help``."""

from mmmoco.apis import cli
from mmmoco.apis.probing.jobs import evaluate_checkpoints

if __name__ == '__main__':
    cli.main(evaluate_checkpoints, positionals=('config',))
