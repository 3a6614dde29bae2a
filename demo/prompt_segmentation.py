"""Segment by one click: ``python demo/prompt_segmentation.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.page.jobs import prompt_segmentation

if __name__ == '__main__':
    cli.main(prompt_segmentation)
