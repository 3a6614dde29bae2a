"""Write features of images to a file: see ``--help``."""

from mmmoco.apis import cli
from mmmoco.apis.probing.jobs import extract_features

if __name__ == '__main__':
    cli.main(extract_features, positionals=('config', 'checkpoint'))
