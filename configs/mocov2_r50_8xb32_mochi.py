# MoCHi, hard negatives mixed for MoCo v2, 200 epochs (arXiv 2010.01028).
# Hardware: 8 GPUs of 8 GB or more, 32 images each.
# Time: about that of mocov2_r50_8xb32, of which mixtures are a small part.
# Metric: none is cited, for the paper's tables were not to hand.
_base_ = 'mocov2_r50_8xb32.py'

# The two mixtures are the paper's, their numbers a recipe of ours; the first
# ten epochs without them are those of SynCo (arXiv 2410.02401).
model = dict(
    loss=dict(
        hard_negatives=dict(
            type='HardNegatives', n=1024, s=1024, s2=128, start_epoch=10
        )
    )
)
