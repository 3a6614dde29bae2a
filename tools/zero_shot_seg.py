"""Zero-shot segmentation: ``python tools/zero_shot_seg.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.dense.jobs import zero_shot_segmentation

if __name__ == '__main__':
    cli.main(zero_shot_segmentation, positionals=('config', 'checkpoint'))
