import itertools
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmmoco.engine.bare_model import two_phase_model
from mmmoco.engine.key_probe import KeyProbe
from mmmoco.engine.norm_statistics import statistics_of
from mmmoco.engine.numbered_batches import number_batches
from mmmoco.engine.screen import ABOUT
from mmmoco.functional import derive_seed, seed_global_generators
from mmmoco.progress import Progress
from mmmoco.registry import HOOKS


@HOOKS.register_module()
class FillQueueHook(Hook):
    """Fill the queue with keys of images before the first step.

    It begins with random vectors, which are told from keys too easily. Here
    the model's own loss stages keys of the training images, as many as the
    dictionaries hold, and nothing is learnt from it: images and views have
    draws of their own, and BatchNorm's running statistics go back to where
    they were. A resumed run has the queue of its checkpoint.
    """

    #: After the hooks that complete the key encoder.
    priority = 'BELOW_NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Fill it, unless the run goes on.

        Raises:
            RuntimeError: If the model has no dictionary of keys.
        """
        if runner.iter:
            return
        model = two_phase_model(runner)
        if model is None or not KeyProbe.fits(model):
            raise RuntimeError(
                f'FillQueueHook: {type(model or runner.model).__name__} has '
                'no queue of keys: leave the hook out of custom_hooks.'
            )
        keys = max(getattr(d, 'size', 0) for d in model.dictionaries)
        seed = derive_seed(runner.seed, 'fill the queue') % 2**32
        # What a foreign data set draws begins here.
        seed_global_generators(seed, get_rank())
        loader = Runner.build_dataloader(
            {
                **runner.cfg.train_dataloader,
                'dataset': runner.train_dataloader.dataset,
                'persistent_workers': False,
            },
            seed=seed,
        )
        where = SimpleNamespace(seed=seed, epoch=0)
        number_batches(loader, where, endless=True)
        batches = _endless(loader)
        model.train()
        done = step = 0
        with (
            _kept_statistics(model),
            closing(batches),
            Progress('Keys for the queue', keys) as progress,
        ):
            while done < keys:
                model.set_address(seed, step, get_rank())
                data = next(batches)
                brought = len(data['ids']) * runner.world_size
                brought *= model.keys_per_image
                with (
                    torch.no_grad(),
                    runner.optim_wrapper.optim_context(runner.model),
                ):
                    data = model.data_preprocessor(data, True)
                    model(**data, mode='loss')
                model.commit_keys()
                progress.advance(brought)
                done, step = done + brought, step + 1
        runner.logger.info(
            f'The queue holds {keys:,} keys of images before the first step.',
            extra=ABOUT,
        )


def _endless(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    for epoch in itertools.count():
        if hasattr(loader.sampler, 'set_epoch'):
            loader.sampler.set_epoch(epoch)
        yield from loader


@contextmanager
def _kept_statistics(model: nn.Module) -> Iterator[None]:
    kept = [(own, own.clone()) for own in statistics_of(model)]
    try:
        yield
    finally:
        for own, before in kept:
            own.copy_(before)
