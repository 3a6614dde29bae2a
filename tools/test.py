"""Test a checkpoint: ``python tools/test.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.probing.jobs import test

if __name__ == '__main__':
    cli.main(test, positionals=('config', 'checkpoint'))
