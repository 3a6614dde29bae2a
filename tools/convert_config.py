"""Turn a config into ours: ``python tools/convert_config.py --help``."""

from mmmoco.apis.exchange.convert_config import main

if __name__ == '__main__':
    main()
