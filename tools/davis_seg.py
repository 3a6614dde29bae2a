"""Label propagation on DAVIS 2017: ``python tools/davis_seg.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.dense.jobs import davis

if __name__ == '__main__':
    cli.main(davis, positionals=('config', 'checkpoint', 'root'))
