"""Statistics of images: ``python tools/dataset_stats.py --help``."""

from mmmoco.apis.data.dataset_stats import main

if __name__ == '__main__':
    main()
