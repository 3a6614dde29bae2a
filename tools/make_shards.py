"""Write images as tar shards: ``python tools/make_shards.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.data.jobs import make_shards

if __name__ == '__main__':
    cli.main(make_shards)
