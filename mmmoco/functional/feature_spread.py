"""How far a sample of features is from having collapsed."""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def feature_spread(features: Tensor) -> float:
    """Return the standard deviation of normalised features, times √C.

    Each of the C features of L2-normalised vectors has the standard
    deviation 1/√C if they are spread evenly over the sphere, and 0 if all
    are the same vector (`SimSiam <https://arxiv.org/abs/2011.10566>`_,
    section 4.1). Over these, the result is 1 for the former, 0 for the
    latter.

    Args:
        features: N×C, N of at least 2.
    """
    normal = F.normalize(features.float(), dim=1)
    std = normal.std(dim=0, unbiased=False).mean()
    return float(std * features.shape[1] ** 0.5)


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """Return the effective rank of normalised features, 1 … min(N, C).

    The exponential of the entropy of the singular values, taken as shares of
    their sum (Roy and Vetterli, EUSIPCO 2007, definition 1). 1 if all
    vectors are the same; the number of directions in use, where these are
    used evenly. NaN if a feature is not finite.

    Args:
        features: N×C.
    """
    # LAPACK, since a GPU is slow on small matrices.
    normal = F.normalize(features.float(), dim=1).cpu()
    if not bool(torch.isfinite(normal).all()):
        return float('nan')
    share = torch.linalg.svdvals(normal)
    share = share / share.sum()
    return float(torch.exp(torch.special.entr(share).sum()))
