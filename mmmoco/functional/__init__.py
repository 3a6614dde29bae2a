"""Pure functions of tensors: no module, no state, no configuration."""

from .chunked_look_up import info_nce
from .collectives import gather, gather_with_grad
from .exchange import ShufflePlan, shuffle, shuffle_plan, unshuffle
from .extended_box import PASSES, blur_radius, blur_taps, extended_box
from .feature_distance import (
    check_distance,
    check_weights,
    feature_distance,
    feature_similarity,
)
from .feature_spread import effective_rank, feature_spread
from .finite import first_not_finite
from .hard_negatives import Mixing
from .info_nce import Candidates, Stats, plain_info_nce, same
from .knn import Neighbours, nearest, nearest_in_shards, vote
from .masked import masked_l1, patch_distance, patch_fraction, patch_info_nce
from .randomness import (
    derive_seed,
    generator,
    generator_on,
    seed_global_generators,
)
from .ranges import Range, check_range, check_size, check_within
from .transfer import send
