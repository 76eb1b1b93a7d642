"""Pin what the experiments read and did not make themselves, by the fingerprint that it had when they were defined.

The fingerprint is part of a trial's identity, so it must be known before anything is fetched or loaded; and it is
compared with what is found before a trial runs. Reviews: as a task says it. Passages: of their texts. SmolLM2: of its
weights in float32, whatever version of transformers configures it.
"""

from __future__ import annotations

PINNED = {
    "movie-reviews": "1bb7e108e2cccea1",
    "passages": "3b23b23a26d19fe0",
    "smollm2": "b2da5d5a6c26fc58",
}
