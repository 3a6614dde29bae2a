"""Hand over a backbone: ``python tools/export_backbone.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.exchange.jobs import export_backbone

if __name__ == '__main__':
    cli.main(export_backbone)
