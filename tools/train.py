"""Train a config: ``python tools/train.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.training.jobs import train

if __name__ == '__main__':
    cli.main(train)
