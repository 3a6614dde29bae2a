"""See MoCo v2 learn, on two CPU cores, without downloading anything.

Trains ``configs/demo/mocov2_digits.py`` on scenes of handwritten digits and
compares its features with raw pixels and with the untrained network, by the
same k-NN on the same scenes. Writes summary.json, curves.png and
neighbours.png into the work dir.
"""

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmoco.apis import cli, get_model
from mmmoco.apis.training.runner import build_runner
from mmmoco.apis.training.train import prepare
from mmmoco.engine import checkpoint_io
from mmmoco.engine.evaluation.features import Features, extract_features
from mmmoco.evaluation.knn import KNNResult, knn_accuracy
from mmmoco.visualization.curves import plot_curves
from mmmoco.visualization.neighbours import draw_neighbours
from mmmoco.visualization.scalars import read_scalars

CONFIG = 'demo/mocov2_digits'


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or '').split('\n\n')[0]
    )
    parser.add_argument('--work-dir', default='work_dirs/quickstart')
    parser.add_argument(
        '--max-iters', type=int, help='stop early (for a quick look)'
    )
    cli.add_debug(parser)
    args = parser.parse_args()
    cli.run(lambda: quickstart(args), 'quickstart.py', args.debug)


def quickstart(args: argparse.Namespace) -> None:
    """Train, compare, draw."""
    work_dir = Path(args.work_dir)
    cfg = prepare(
        CONFIG,
        work_dir=args.work_dir,
        overwrite=True,
        max_iters=args.max_iters,
    )
    init_default_scope('mmmoco')
    loaders = [
        Runner.build_dataloader(dict(cfg.knn[name]), seed=0)
        for name in ('bank', 'query')
    ]
    protocol = {'k': cfg.knn.k, 'temperature': cfg.knn.temperature}

    raw = knn(*(extract_features(Pixels(), x) for x in loaders), protocol)

    runner = build_runner(cfg)
    start = time.perf_counter()
    runner.train()
    seconds = time.perf_counter() - start

    scalars = read_scalars(Path(runner.log_dir) / 'vis_data' / 'scalars.json')
    curve = scalars['knn/top1']
    checkpoint = checkpoint_io.find_latest(args.work_dir)
    model: Any = get_model(cfg, str(checkpoint)).to(get_device())
    bank, query = (extract_features(model, loader) for loader in loaders)
    trained = knn(bank, query, protocol)

    summary = {
        'random_init_top1': round(curve[0][1], 2),
        'raw_pixel_top1': round(raw.metrics['top1'], 2),
        'trained_top1': round(trained.metrics['top1'], 2),
        'train_seconds': round(seconds, 1),
    }
    checkpoint_io.write_text(
        str(work_dir / 'summary.json'), json.dumps(summary, indent=2) + '\n'
    )
    references = {
        'raw pixels': summary['raw_pixel_top1'],
        'random init': summary['random_init_top1'],
    }
    checkpoint_io.replace(
        work_dir / 'curves.png',
        lambda file: plot_curves(
            file, loss=scalars['loss'], knn=curve, references=references
        ),
    )
    draw(work_dir / 'neighbours.png', loaders, trained)
    report(summary, protocol, work_dir)


class Pixels(nn.Module):
    """The images themselves as features, the floor of any backbone."""

    def data_preprocessor(self, batch: Any, training: bool) -> Any:
        """Leave a batch as it is."""
        return batch

    def extract_feat(self, x: Tensor, stage: str) -> Tensor:
        """Return the pixels of N images."""
        return x.flatten(1).float()


def knn(
    bank: Features, query: Features, protocol: dict[str, Any]
) -> KNNResult:
    """Evaluate with the protocol that all three figures share."""
    return knn_accuracy(*bank, *query, **protocol)


def draw(path: Path, loaders: list[Any], result: KNNResult) -> None:
    """Draw one query of every class with its eight nearest scenes."""
    bank, query = (loader.dataset for loader in loaders)
    labels = np.array([query[i]['labels'] for i in range(len(query))])
    chosen = [int(np.flatnonzero(labels == c)[0]) for c in np.unique(labels)]
    nearest = result.neighbours[chosen, :8].cpu().tolist()
    picture = io.BytesIO()
    draw_neighbours(
        picture,
        queries=np.stack([image(query, i) for i in chosen]),
        labels=labels[chosen].tolist(),
        neighbours=np.array(
            [[image(bank, i) for i in row] for row in nearest]
        ),
        neighbour_labels=np.array(
            [[bank[i]['labels'] for i in row] for row in nearest]
        ),
        classes=[str(c) for c in bank.metainfo['classes']],
    )
    checkpoint_io.write_bytes(path, picture.getvalue())


def image(dataset: Any, index: int) -> np.ndarray[Any, Any]:
    """Return a scene as H×W×C."""
    pixels: np.ndarray[Any, Any] = (
        dataset[index]['inputs']['image'].permute(1, 2, 0).numpy()
    )
    return pixels


def report(
    summary: dict[str, float], protocol: dict[str, Any], work_dir: Path
) -> None:
    """Print the three figures side by side, and where the pictures are."""
    raw = summary['raw_pixel_top1']
    random = summary['random_init_top1']
    trained = summary['trained_top1']
    print(
        f'\nWeighted k-NN top-1 on held-out digits (k={protocol["k"]}, '
        f'temperature={protocol["temperature"]:g}, same bank and queries)\n'
        f'  untrained network   raw pixels   MoCo v2\n'
        f'  {random:15.1f} % {raw:10.1f} % {trained:7.1f} %\n'
        f'  MoCo v2 is {trained - random:+.1f} points above the untrained '
        f'network, {trained - raw:+.1f} above raw pixels.\n'
        f'  Trained in {summary["train_seconds"]:.0f} s.\n\n'
        'Look at\n'
        f'  {work_dir / "curves.png"}      loss and k-NN over the training\n'
        f'  {work_dir / "neighbours.png"}  scenes and their nearest '
        'neighbours\n'
        f'  {work_dir / "summary.json"}    the figures above'
    )


if __name__ == '__main__':
    main()
