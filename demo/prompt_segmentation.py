"""Segment by one click: ``python demo/prompt_segmentation.py --help``."""

from mmmoco.apis.page.prompt_segmentation import main

if __name__ == '__main__':
    main()
