"""Check a config before training: ``python tools/verify_config.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.preflight.jobs import verify_config

if __name__ == '__main__':
    cli.main(verify_config)
