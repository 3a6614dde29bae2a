"""Pictures of similarity maps: ``tools/visualize_similarity.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.dense.jobs import visualize_similarity

if __name__ == '__main__':
    cli.main(visualize_similarity, positionals=('config', 'checkpoint'))
