"""Turn a config into ours: ``python tools/convert_config.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.exchange.jobs import convert_config

if __name__ == '__main__':
    cli.main(convert_config)
