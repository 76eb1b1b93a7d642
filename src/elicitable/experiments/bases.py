"""Define the pretrained toys of section 5.

Pretraining is a trial like any other, and experiments that name the same one share it. The iterations and rates are
ours, found by a sweep; the companion pretrains for 20,000 to 40,000 iterations at 5e-4. During pretraining the content
stands at a random offset, which reaches as far as the longest prefix of the experiments that use the toy and no
further: the wider it varies, the longer the attention takes to form (docs/log.md).
"""

from __future__ import annotations

from elicitable.experiments.experiment import Pretrain
from elicitable.values import ToySpec

ASCENDING = Pretrain(
    "pretrained on ascending",
    ToySpec(
        "ascending",
        "ascending",
        layers=1,
        heads=1,
        d_model=96,
        has_first_norm=True,
        steps=2_000,
        learning_rate=2e-3,
        largest_offset=1,
    ),
    measures=("attention",),
)
MIXED_ONE_LAYER = Pretrain(
    "pretrained on the mix",
    ToySpec(
        "mixed-1-layer",
        "mixed",
        layers=1,
        heads=4,
        d_model=256,
        has_first_norm=False,
        steps=2_000,
        learning_rate=1e-3,
        largest_offset=1,
    ),
)
MIXED = Pretrain(
    "pretrained on the mix",
    ToySpec(
        "mixed",
        "mixed",
        layers=4,
        heads=4,
        d_model=256,
        has_first_norm=True,
        steps=2_000,
        learning_rate=1e-3,
        largest_offset=12,
    ),
)

DEVIATIONS = (
    "no positions are reserved for the prefix in pretraining; the content stands at a random offset, up to the longest "
    "prefix's length, instead",
    "ReLU blocks without dropout; AdamW with warm-up, a constant phase and a cosine, at rates found by sweep",
    "inputs of ten equal digits are in no task: a count of 10 is outside the vocabulary of 10 symbols",
    "a quarter of all inputs is held out by a stable hash; the companion's changes with every process",
)
