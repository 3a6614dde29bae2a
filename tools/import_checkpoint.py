"""Take in a checkpoint: ``python tools/import_checkpoint.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.exchange.jobs import import_checkpoint

if __name__ == '__main__':
    cli.main(import_checkpoint)
