"""Statistics of images: ``python tools/dataset_stats.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.data.jobs import dataset_stats

if __name__ == '__main__':
    cli.main(dataset_stats)
