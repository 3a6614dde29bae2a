"""Images into tar shards: the job behind ``tools/make_shards.py``."""

import argparse
import sys
from collections.abc import Sequence

from mmengine.utils import track_iter_progress

from mmmoco.datasets.image_folder import EXTENSIONS, ImageFolderDataset
from .shard_writer import write_shards

from mmmoco.apis import cli


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/make_shards.py``."""
    result = argparse.ArgumentParser(
        prog='make_shards.py',
        description='Write the images of a folder as tar shards, unchanged. '
        'A run that was stopped goes on where it was.',
        epilog='Example: python tools/make_shards.py /data/imagenet/train '
        '/data/shards --labels',
    )
    result.add_argument('source', metavar='SRC', help='folder of images')
    result.add_argument('out', metavar='OUT', help='folder for the shards')
    result.add_argument(
        '--ann-file',
        default='',
        metavar='FILE',
        help='list of paths relative to SRC, instead of all images below it',
    )
    result.add_argument(
        '--labels',
        action='store_true',
        help='store classes: the folders directly below SRC, or the numbers '
        'in FILE',
    )
    result.add_argument(
        '--samples-per-shard', type=int, default=1000, metavar='N'
    )
    result.add_argument(
        '--seed', type=int, default=0, help='of the shuffle (%(default)s)'
    )
    result.add_argument(
        '--no-shuffle', action='store_true', help='keep the order of the paths'
    )
    result.add_argument(
        '--extensions',
        nargs='+',
        default=EXTENSIONS,
        metavar='.EXT',
        help='which files are images (%(default)s)',
    )
    result.add_argument(
        '--force', action='store_true', help='replace other shards in OUT'
    )
    cli.add_debug(result)
    return result


def make_shards(args: argparse.Namespace) -> None:
    """Write as the command line says."""
    source = ImageFolderDataset(
        args.source,
        ann_file=args.ann_file,
        with_labels=args.labels,
        extensions=args.extensions,
    )
    try:
        written = write_shards(
            source,
            args.out,
            args.samples_per_shard,
            None if args.no_shuffle else args.seed,
            args.force,
            progress=track_iter_progress,
        )
    except OSError as error:
        raise cli.UsageError(str(error)) from error
    for bad in written.bad:
        sys.stderr.write(f'left out {bad.name!r}: {bad.reason}\n')
    old = written.shards - written.new
    text = (
        f'\n{written.samples} images in {written.shards} shards in '
        f'{args.out!r} ({written.new} written now, {old} were there)'
    )
    if written.bad:
        text += f'; {len(written.bad)} files could not be read'
    sys.stdout.write(f'{text}.\n')


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/make_shards.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: make_shards(args), 'make_shards.py', args.debug)
