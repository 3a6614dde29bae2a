"""Zero-shot segmentation: ``python tools/zero_shot_seg.py --help``."""

from mmmoco.apis.dense.zero_shot_seg import main

if __name__ == '__main__':
    main()
