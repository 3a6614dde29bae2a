"""The papers' pseudo-code in plain torch; nothing of mmmoco is called here.

Networks, optimizer, moving average, queue and loss are written out. They
take over initial weights from tensors in their own order of definition.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn


class ConvNet(nn.Module):
    """Two convolutions with BatchNorm, averaged over the pixels."""

    def __init__(self, splits=1):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.splits = splits

    def norm(self, bn, x):
        if self.splits == 1:
            return bn(x)
        # Several GPUs on one: each part of the batch is one GPU's.
        parts = [
            F.batch_norm(part, None, None, bn.weight, bn.bias, True)
            for part in x.chunk(self.splits)
        ]
        return torch.cat(parts)

    def forward(self, x):
        x = F.relu(self.norm(self.bn1, self.conv1(x)))
        x = F.relu(self.norm(self.bn2, self.conv2(x)))
        return x.mean((2, 3))


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def attention(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        width = q.shape[-1] // self.heads
        results = []
        for h in range(self.heads):
            part = slice(h * width, (h + 1) * width)
            scores = q[..., part] @ k[..., part].transpose(1, 2)
            results.append(
                (scores / math.sqrt(width)).softmax(-1) @ v[..., part]
            )
        return self.out(torch.cat(results, -1))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """A small ViT: frozen patches and positions, class token, final norm."""

    def __init__(self, dim=16, depth=2, heads=4, hidden=32, patch=4, side=8):
        super().__init__()
        tokens = (side // patch) ** 2
        self.cls = nn.Parameter(torch.empty(1, 1, dim))
        self.positions = nn.Parameter(torch.empty(1, 1 + tokens, dim))
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.blocks = nn.Sequential(
            *[Block(dim, heads, hidden) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.positions.requires_grad_(False)
        self.patches.requires_grad_(False)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        return self.norm(self.blocks(x + self.positions))[:, 0]


def linear_head(width, out):
    return nn.Sequential(nn.Linear(width, out))


def mlp_head(width, out):
    return nn.Sequential(
        nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out)
    )


def v3_mlp(width, hidden, out, layers, last_bn):
    """Linear without bias and BatchNorm, ReLU between; the last no affine."""
    modules = []
    for i in range(layers):
        last = i == layers - 1
        modules.append(
            nn.Linear(
                width if i == 0 else hidden,
                out if last else hidden,
                bias=False,
            )
        )
        if not last:
            modules += [nn.BatchNorm1d(hidden), nn.ReLU()]
        elif last_bn:
            modules.append(nn.BatchNorm1d(out, affine=False))
    return nn.Sequential(*modules)


def take_weights(module, tensors):
    """Copy tensors into a module's parameters and buffers, in order."""
    with torch.no_grad():
        for own, value in zip(
            module.state_dict().values(), tensors, strict=True
        ):
            own.copy_(value)
    return module


def normalise(x):
    return (x.float() - 128) / 64


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def cosine_m(m, step, steps):
    return 1 - (1 - m) * (1 + math.cos(math.pi * step / steps)) / 2


def cross_entropy(logits, labels):
    picked = logits.log_softmax(1)[torch.arange(len(logits)), labels]
    return -picked.mean()


def with_queue(q, k, queue, tau):
    """One positive and K negatives (v1, algorithm 1)."""
    l_pos = torch.einsum('nc,nc->n', q, k)[:, None]
    l_neg = torch.einsum('nc,ck->nk', q, queue)
    logits = torch.cat([l_pos, l_neg], 1) / tau
    return cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


def in_batch(q, k, tau):
    """The other rows are the negatives (v3, algorithm 1, without 2 tau)."""
    return cross_entropy(q @ k.T / tau, torch.arange(len(q)))


class SGD:
    """With momentum and weight decay, as in the text of the papers."""

    def __init__(self, parameters, lr, momentum, decay):
        self.parameters = parameters
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.velocity = [torch.zeros_like(p) for p in parameters]

    def step(self, grads):
        for i, (p, g) in enumerate(zip(self.parameters, grads, strict=True)):
            g = g + self.decay * p.data
            self.velocity[i] = self.momentum * self.velocity[i] + g
            p.data = p.data - self.lr * self.velocity[i]


class Ring:
    """The queue as a list of slots, filled one key after the other."""

    def __init__(self, keys):
        self.keys = keys.clone()  # CxK
        self.ptr = 0

    def enqueue(self, k):
        for key in k:
            self.keys[:, self.ptr] = key
            self.ptr = (self.ptr + 1) % self.keys.shape[1]


class Run:
    """Encoders and optimizer; a subclass per mechanism writes ``loss``.

    Args:
        f: The query encoder; ``f_k`` starts as its copy.
        predictor: Follows the query encoder only (v3).
        sgd: lr, momentum and weight decay.
    """

    def __init__(self, f, sgd, predictor=None, key_encoder=True):
        self.f = f
        self.f_k = copy.deepcopy(f) if key_encoder else None
        self.predictor = predictor
        modules = [f] if predictor is None else [f, predictor]
        self.parameters = [p for m in modules for p in m.parameters()]
        self.learnt = [p for p in self.parameters if p.requires_grad]
        self.sgd = SGD(self.learnt, **sgd)

    def momentum_update(self, m):
        for p_k, p_q in zip(
            self.f_k.parameters(), self.f.parameters(), strict=True
        ):
            p_k.data = m * p_k.data + (1 - m) * p_q.data

    def key(self, x):
        with torch.no_grad():
            return unit(self.f_k(x))

    def step(self, x_1, x_2, ids):
        """Return loss and gradients of one iteration, after its update."""
        loss, *stored = self.loss(x_1, x_2, ids)
        grads = torch.autograd.grad(loss, self.learnt)
        self.sgd.step(grads)
        self.store(*stored)
        return loss.detach(), grads

    def store(self):
        """Write what the step brings into the dictionary."""


class MoCo(Run):
    """Algorithm 1 of MoCo v1."""

    def __init__(self, f, sgd, queue, tau):
        super().__init__(f, sgd)
        self.ring, self.tau = Ring(queue), tau

    def loss(self, x_q, x_k, ids):
        q, k = unit(self.f(x_q)), self.key(x_k)
        return with_queue(q, k, self.ring.keys, self.tau), k

    def store(self, *keys):
        for k in keys:
            self.ring.enqueue(k)
