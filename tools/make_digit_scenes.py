"""Write scenes of handwritten digits to a folder, with their ground truth.

The folder holds the same scenes in four layouts: ImageNet folders, COCO
instances, VOC2007 and Cityscapes (labelTrainIds: the digits are 0 to 9, the
canvas is 10). Nothing is downloaded, and equal arguments give equal files.
"""

import argparse
import re
import sys
from pathlib import Path

from mmengine.utils import track_iter_progress

from mmmoco.apis.data.digit_export import check_target, export_scenes
from mmmoco.datasets.digit_scenes import DigitScenes


def number_or_range(text: str) -> tuple[int, int]:
    """Parse ``3`` or ``1-5``."""
    match = re.fullmatch(r'(\d+)(?:-(\d+))?', text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f'{text!r} is neither a number nor a range such as 1-5'
        )
    low, high = match.groups()
    return int(low), int(high or low)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('out', metavar='OUT', help='folder to be made')
    parser.add_argument(
        '--num-train', type=int, default=1000, help='default: %(default)s'
    )
    parser.add_argument(
        '--num-val',
        type=int,
        default=200,
        help='scenes of other digits than those of train; '
        'default: %(default)s',
    )
    parser.add_argument(
        '--size', type=int, default=96, help='pixels; default: %(default)s'
    )
    parser.add_argument(
        '--digits-per-image',
        type=number_or_range,
        default=(1, 5),
        metavar='N|LOW-HIGH',
        help='fewer where there is no room for more; default: 1-5',
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--format',
        choices=('jpg', 'png'),
        default='jpg',
        help='of the ImageNet folders and so of COCO; VOC is always jpg,\n'
        'Cityscapes always png; default: %(default)s',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace the scenes in OUT'
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = parse_args(argv)
    numbers = {'train': args.num_train, 'val': args.num_val}
    try:
        check_target(Path(args.out).expanduser().resolve(), args.force)
        print(f'Drawing {" + ".join(map(str, numbers.values()))} scenes')
        scenes = {
            split: DigitScenes(
                split=split,
                size=args.size,
                digits_per_image=args.digits_per_image,
                num_scenes=number,
                seed=args.seed,
            )
            for split, number in numbers.items()
        }
        export_scenes(
            args.out,
            scenes,
            image_format=args.format,
            force=args.force,
            progress=track_iter_progress if sys.stdout.isatty() else iter,
        )
    except (ValueError, OSError) as error:
        print(f'make_digit_scenes: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'\nStopped; {args.out!r} is as it was.', file=sys.stderr)
        return 130
    print(f'Wrote {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
