"""Similarities in and between objects: ``tools/similarity.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.dense.jobs import similarity

if __name__ == '__main__':
    cli.main(similarity, positionals=('config', 'checkpoint'))
