"""The toy transformers of the paper's section 5: GPT-2 blocks over a vocabulary of ten digits.

They are trained by ``elicitable pretrain`` and kept in the package with their full training record. Differences from
the companion code: no reserved prefix positions; instead the content stands at a random offset at every pretraining
step, so that a context may come first without moving the content to positions never seen.
"""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from elicitable.models.model import Model
from elicitable.rng import derive_seed
from elicitable.values import ToySpec

SYMBOLS = 10
CONTENT = 19  # ten digits read, ten written, the last of which is never read
LONGEST_CONTEXT = 64


TOYS = {
    "ascending": ToySpec("ascending", "ascending", layers=1, heads=1, d_model=96, steps=20_000, learning_rate=2e-3),
    "mixed": ToySpec("mixed", "mixed", layers=4, heads=4, d_model=256, steps=6_000, learning_rate=1e-3),
}
PREFIX_LENGTHS = {"ascending": 2, "mixed": 12}  # of the paper's experiments; 2 residual vectors buy 1 key and value


def build_toy(spec: ToySpec, seed: int) -> Model:
    """A toy with fresh weights; the same seed gives the same bytes, and the global generator is left alone."""
    config = GPT2Config(
        vocab_size=SYMBOLS,
        n_positions=CONTENT + LONGEST_CONTEXT,
        n_embd=spec.d_model,
        n_layer=spec.layers,
        n_head=spec.heads,
        activation_function="relu",  # on a CPU, GELU alone took a third of a training step (benchmarks/attention.py)
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "toy", spec.name))
        hf = GPT2LMHeadModel(config)
    if not spec.has_first_norm:
        for block in hf.transformer.h:
            block.ln_1 = torch.nn.Identity()
    return Model(hf.eval(), name=f"toy:{spec.name}")
