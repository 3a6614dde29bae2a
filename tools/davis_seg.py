"""Label propagation on DAVIS 2017: ``python tools/davis_seg.py --help``."""

from mmmoco.apis.dense.davis import main

if __name__ == '__main__':
    main()
