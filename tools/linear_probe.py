"""Linear probe of a checkpoint: ``python tools/linear_probe.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.probing.jobs import linear_probe

if __name__ == '__main__':
    cli.main(linear_probe, positionals=('config', 'checkpoint'))
