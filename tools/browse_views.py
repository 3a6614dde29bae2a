"""Look at the views of a config: ``python tools/browse_views.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.preflight.jobs import browse_views

if __name__ == '__main__':
    cli.main(browse_views)
