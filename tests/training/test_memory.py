"""A few long texts among many short ones take no more memory than batches that are full."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache

import pytest
import torch

from elicitable.models.attend import KEPT, Slot

TOKENS = 3_000  # of the longest text
CHILD = """
import json, resource, sys
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
import elicitable as el
from elicitable.methods.catalog import method_named
from elicitable.training.batches import Reading
from elicitable.training.evaluate import answers, evaluate
from elicitable.training.loop import Plan, train
from elicitable.values import Item

work, kind = sys.argv[1:]
torch.set_num_threads(1)
words = ["<unk>", "</s>", *(f"w{n}" for n in range(2_046))]
tokens = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
sizes |= {"vocab_size": len(words), "max_position_embeddings": 4_096, "num_key_value_heads": 2}
config = LlamaConfig(eos_token_id=1, **sizes)
torch.manual_seed(0)
model = el.load(LlamaForCausalLM(config), tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="</s>"))

def item(number, length):
    text = " ".join(f"w{(number * 31 + place * place) % 2_046}" for place in range(length))
    return Item(text, f" w{number % 4}")

class Mixed:
    name = "mixed"
    def __init__(self, items): self.items = items
    def labels(self): return (" w0", " w1", " w2", " w3") if work == "labels" else None
    def sample(self, n, rng): return [self.items[at] for at in rng.permutation(len(self.items))[:n]]
    def held_out(self, split, n=None): return self.items[-16:]
    def fingerprint(self): return kind

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

lengths = [256] * 300 if kind == "full" else [20] * 1_980
if kind == "mixed":
    lengths = [3_000 - 10 * n for n in range(20)] + lengths
items = [item(number, length) for number, length in enumerate(lengths)]
task = Mixed(items)
evaluate(model, items[-16:], task.labels(), Reading())
before = peak()
if work in ("free", "labels"):
    evaluate(model, items, task.labels(), Reading())
elif work == "written":
    answers(model, items[:60], None, Reading())
else:
    method = method_named(work)
    adaptation = method.build(model, 4, seed=0, **method.start(model))
    steps = 32 if kind != "full" else 8
    train(model, adaptation, task, Plan(learning_rate=1e-3, batch=16, steps=steps, evaluate_every=steps), 0)
print(json.dumps(peak() - before))
"""


def test_masks_are_kept_up_to_a_size() -> None:
    slot = Slot()
    for keys in range(2_000, 2_040):
        mask = slot.causal(keys, keys, 4, torch.device("cpu"))
        assert bool(mask[0, 0, 0, :5].all())
        assert not bool(mask[0, 0, 0, 5])
    kept = list(slot._masks.values())
    assert sum(one.numel() for one in kept) <= KEPT
    assert any(one is slot.causal(keys, keys, 4, torch.device("cpu")) for one in kept)


@lru_cache
def added(work: str, kind: str) -> float:
    """MiB that the work adds to the peak of a process of its own, whose model is loaded."""
    done = subprocess.run([sys.executable, "-c", CHILD, work, kind], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


@pytest.mark.parametrize("work", ["free", "written"])
def test_twenty_long_texts_among_two_thousand_add_no_more_than_a_full_batch_and_one_mask(work: str) -> None:
    """A batch holds as many tokens as one that is full of 256-token texts, and the mask of one text at a time.

    That mask is ``TOKENS`` squared, in one byte and as float32; a quarter is left to what the allocator keeps.
    """
    mask = 5 * TOKENS**2 / 2**20
    full = max(added(work, "short"), added(work, "full"))
    assert added(work, "mixed") <= 1.25 * (full + mask) + 16
