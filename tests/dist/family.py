"""Short trainings that are the same on one process and on several.

Run under torchrun with an output folder, every process writes what it saw;
imported, the same functions run on one process with the joint batch.
"""

import sys

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from mmengine.model import MMDistributedDataParallel

from mmmoco import TrainStep
from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.functional import shuffle_plan
from mmmoco.registry import MODELS

JOINT, STEPS, C, IMAGES = 8, 5, 8, 24
QUEUE = dict(type='Queue', size=20, feat_dim=C)
MLP = dict(
    type='mmpretrain.MoCoV2Neck',
    in_channels=8,
    hid_channels=8,
    out_channels=C,
)
DENSE = dict(
    type='DenseCL',
    neck={**MLP, 'type': 'mmpretrain.DenseCLNeck'},
    dictionary=QUEUE,
    dense_dictionary={**QUEUE, 'size': 17},
)
V3 = dict(
    type='MoCoV3',
    predictor=dict(
        type='mmpretrain.NonLinearNeck',
        in_channels=C,
        hid_channels=8,
        out_channels=C,
        with_last_bn=False,
        with_avg_pool=False,
        norm_cfg=dict(type='LN'),
    ),
    loss=dict(type='InfoNCE', temperature=0.2, scale_by_2tau=True),
)
BANK = dict(
    type='MemoryBank', size=IMAGES, feat_dim=C, num_negatives=16, momentum=0.5
)
TRAININGS = {
    'queue': dict(dictionary=QUEUE),
    'hard negatives': dict(
        dictionary=QUEUE,
        loss=dict(
            type='InfoNCE',
            temperature=0.2,
            hard_negatives=dict(type='HardNegatives', n=9, s=7, s2=5),
        ),
    ),
    'symmetric': dict(symmetric=True, dictionary=QUEUE),
    'memory bank': dict(dictionary=BANK),
    'end-to-end': dict(dictionary=dict(type='InBatch', key_grad=True)),
    'dense': DENSE,
    'v3': V3 | dict(dictionary=dict(type='InBatch')),
    'hybrid': V3 | dict(dictionary=QUEUE),
}


def build(norm=None, **options):
    torch.manual_seed(0)
    cfg = dict(
        type='MoCoV2',
        backbone=dict(
            type='PlainConvNet',
            in_channels=3,
            channels=(4, 8),
            strides=(1, 2),
            out_indices=(1,),
            # Normalises every image by itself.
            norm_cfg=norm or dict(type='GN', num_groups=2),
        ),
        neck=MLP,
        loss=dict(type='InfoNCE', temperature=0.2),
        m=0.9,
        data_preprocessor=dict(
            type='ViewAugmentor', mean=(128,) * 3, std=(64,) * 3
        ),
    )
    model = MODELS.build(cfg | options)
    model.init_weights()
    model.train()
    model.announce(*model.needs)
    return model


def joint_batch(step, batch=JOINT):
    draws = torch.Generator().manual_seed(step)
    views = torch.randint(
        0, 256, (2, batch, 3, 8, 8), generator=draws, dtype=torch.uint8
    )
    return views, torch.randperm(IMAGES, generator=draws)[:batch]


def own_part(x, dim=0):
    return x.chunk(get_world_size(), dim)[get_rank()]


def inputs_of(model, views):
    names = ('view_q', 'view_k')
    if hasattr(model, 'predictor'):
        names = ('view_1', 'view_2')
    return dict(zip(names, views, strict=True))


def wrap(model):
    if get_world_size() == 1:
        return model
    return MMDistributedDataParallel(
        model, device_ids=None, broadcast_buffers=False
    )


def train(name):
    """Train, and return losses, gradients and the state after each step."""
    return follow(build(**TRAININGS[name]))


def distillation():
    """A teacher of more, and of wider, patches."""
    torch.manual_seed(0)
    net = dict(
        type='PlainConvNet',
        channels=(4, 8),
        strides=(1, 2),
        out_indices=(1,),
        norm_cfg=dict(type='GN', num_groups=2),
    )
    eyes = dict(mean=(128,) * 3, std=(64,) * 3)
    model = MODELS.build(
        dict(
            type='FeatureDistillation',
            backbone=net,
            teacher=dict(
                type='Teacher',
                backbone=net | dict(channels=(4, 12), strides=(1, 1)),
                random=True,
                **eyes,
            ),
            data_preprocessor=dict(type='ViewAugmentor', **eyes),
        )
    )
    model.init_weights()
    return follow(model.train())


def follow(model):
    """Train a model, and return what the others are compared by."""
    wrapped = wrap(model)
    learnt = [p for p in model.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(learnt, lr=0.05, momentum=0.9)
    wrapper, seen = ContrastOptimWrapper(optimizer=sgd), []
    sgd.register_step_pre_hook(
        lambda *_: seen.append([p.grad.clone() for p in learnt])
    )
    train_step, result = TrainStep(wrapped, wrapper, STEPS), []
    for step in range(STEPS):
        views, ids = joint_batch(step)
        data = dict(
            inputs=inputs_of(model, own_part(views, 1)), ids=own_part(ids)
        )
        loss = train_step(data)['loss'].detach()
        if get_world_size() > 1:
            dist.all_reduce(loss)
        state = {k: v.clone() for k, v in model.state_dict().items()}
        result.append((loss / get_world_size(), seen.pop(), state))
    return result


def masked_contrast():
    """MMC, on parts of a joint batch that is already corrupted."""
    projector = dict(
        type='mmpretrain.NonLinearNeck',
        in_channels=16,
        hid_channels=8,
        out_channels=C,
        with_last_bn=False,
        with_avg_pool=False,
        norm_cfg=dict(type='LN'),
    )
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='MMC',
            backbone=dict(
                type='mmpretrain.VisionTransformer',
                arch=dict(
                    embed_dims=16,
                    num_layers=2,
                    num_heads=4,
                    feedforward_channels=32,
                ),
                img_size=8,
                patch_size=4,
            ),
            heads=dict(
                rec=dict(
                    type='ReconstructionHead', in_channels=16, patch_size=4
                ),
                pat=dict(
                    type='PatchDistillationHead',
                    patch_size=4,
                    projector=projector,
                ),
                cls=dict(type='CLSContrastHead', projector=projector),
            ),
        )
    )
    model.init_weights()
    model.train()
    wrapped = wrap(model)
    learnt = [p for p in model.parameters() if p.requires_grad]
    sgd, result = torch.optim.SGD(learnt, lr=0.05, momentum=0.9), []
    wrapper = ContrastOptimWrapper(optimizer=sgd)
    train_step = TrainStep(wrapped, wrapper, STEPS)
    for step in range(STEPS):
        draws = torch.Generator().manual_seed(step)
        inputs = {'local_1': torch.randn(JOINT, 3, 4, 4, generator=draws)}
        for name in ('view_1', 'view_2'):
            for kind in ('', '_corrupted'):
                inputs[name + kind] = torch.randn(
                    JOINT, 3, 8, 8, generator=draws
                )
            # Unequal parts on the processes.
            share = torch.rand(JOINT, 1, 1, 1, generator=draws)
            where = torch.rand(JOINT, 1, 8, 8, generator=draws)
            inputs[f'{name}_mask'] = where < share
        inputs = {name: own_part(x) for name, x in inputs.items()}
        train_step.begin()
        log = wrapped(inputs, mode='loss')
        loss = sum(v for k, v in log.items() if k.startswith('loss'))
        sgd.zero_grad()
        loss.backward()
        grads = [p.grad.clone() for p in learnt]
        sgd.step()
        train_step.end(stepped=True)
        loss = loss.detach()
        if get_world_size() > 1:
            dist.all_reduce(loss)
        state = {k: v.clone() for k, v in model.state_dict().items()}
        result.append((loss / get_world_size(), grads, state))
    return result


SHUFFLED = 5  # images on each of two processes: no equal split is possible


def shuffle_bn():
    """Encode keys on two processes, exchanged in both places."""
    from mmmoco.functional import gather

    model = build(norm=dict(type='BN'), dictionary=QUEUE)
    dense = build(norm=dict(type='BN'), **DENSE)
    sent, gathered = [], []
    whole, all_gather = dist.all_to_all_single, dist.all_gather
    result = []
    for step in range(3):
        views, ids = joint_batch(step, 2 * SHUFFLED)
        views, ids = own_part(views, 1), own_part(ids)
        model.set_address(seed=0, step=step, rank=get_rank())
        data = dict(inputs=inputs_of(model, views), ids=ids)

        def watch_exchange(out, x, *sizes):
            sent.append((x.dtype, tuple(x.shape), sizes))
            return whole(out, x, *sizes)

        def watch_gather(parts, x):
            gathered.append(x.dim())
            return all_gather(parts, x)

        dist.all_to_all_single = watch_exchange
        dist.all_gather = watch_gather
        batch = model.data_preprocessor(data, True)
        model(**batch, mode='loss')
        dist.all_to_all_single, dist.all_gather = whole, all_gather
        (early, _) = model.dictionary._staged[step, 0]
        x = (views[1].float() - 128) / 64
        late = model.encode_key(x)
        dense.set_address(seed=0, step=step, rank=get_rank())
        # The plan of its functions, against the form that gathers all.
        plan = shuffle_plan(SHUFFLED, 0, step, views.device)
        pixels = batch['inputs']['view_k']
        taken = (gather(views[1]).float()[plan.take] - 128) / 64
        result.append(
            dict(
                early=early,
                late=late,
                dense=tuple(dense.encode_keys(x)),
                take=plan.take,
                pixels_equal=torch.equal(pixels, taken),
                query_equal=torch.equal(
                    batch['inputs']['view_q'],
                    (views[0].float() - 128) / 64,
                ),
            )
        )
    return dict(steps=result, sent=sent, gathered=gathered)


def shuffled_end_to_end():
    """One step whose gradient flows back through the exchange."""
    model = build(
        norm=dict(type='BN'), dictionary=dict(type='InBatch', key_grad=True)
    )
    wrapped = wrap(model)
    views, ids = joint_batch(0, 2 * SHUFFLED)
    model.set_address(seed=0, step=0, rank=get_rank())
    data = dict(inputs=inputs_of(model, own_part(views, 1)), ids=own_part(ids))
    loss = wrapped(**model.data_preprocessor(data, True), mode='loss')['loss']
    loss.backward()
    loss = loss.detach()
    dist.all_reduce(loss)
    learnt = [p.grad for p in model.parameters() if p.requires_grad]
    return loss / get_world_size(), learnt


def main(folder):
    dist.init_process_group('gloo')
    result = {name: train(name) for name in TRAININGS}
    result['distillation'] = distillation()
    result['masked contrast'] = masked_contrast()
    result['shuffle'] = shuffle_bn()
    result['shuffled end-to-end'] = shuffled_end_to_end()
    torch.save(result, f'{folder}/rank{get_rank()}.pth')
    dist.barrier()
    dist.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
