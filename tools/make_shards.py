"""Write images as tar shards: ``python tools/make_shards.py --help``."""

from mmmoco.apis.data.shards import main

if __name__ == '__main__':
    main()
