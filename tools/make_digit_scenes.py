"""Write scenes of digits: ``python tools/make_digit_scenes.py --help``."""

from mmmoco.apis import cli
from mmmoco.apis.data.jobs import make_digit_scenes

if __name__ == '__main__':
    cli.main(make_digit_scenes)
