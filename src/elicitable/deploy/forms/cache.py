"""Keys and values per layer, laid out as a KV connector reads them.

One file per layer, named after its attention, with the tensor ``kv_cache`` (2, token, kv_head · d_head): keys, then
values, head by head. That is how vLLM's shared-storage connector kept them. Its newer versions (0.29 was seen; there it
is the example connector) keep (token, kv_head, 2 · d_head), each head's key and value side by side; the card says how
one becomes the other. The context stands at positions 0 … n−1 and the content behind it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from elicitable.cache import write_tensors
from elicitable.deploy.forms.form import Form, Winner, dumped, whole_or_none
from elicitable.errors import InputError
from elicitable.models.caches import cache_of
from elicitable.values import PrefixKV

NAME, ABOUT = "kv_cache", "kv.json"
SIDE_BY_SIDE = "kv_cache = torch.cat(kv_cache.unflatten(2, (kv_heads, -1)).unbind(0), dim=-1)"


def _refusal(winner: Winner) -> str | None:
    if (why := whole_or_none(winner)) is not None:
        return why
    layers = winner.model.anatomy.layers
    if any(layer.d_head != layer.d_value for layer in layers):
        return "its keys and values have different widths, which one tensor cannot hold"
    return None


def _write(winner: Winner, folder: Path) -> list[str]:
    prefix = winner.whole_prefix()
    assert prefix is not None
    names = _names(winner)
    for name, key, value in zip(names, prefix.keys, prefix.values, strict=True):
        assert key is not None
        assert value is not None
        write_tensors(folder / f"{name}.safetensors", {NAME: torch.stack([_flat(key), _flat(value)])})
    about = {
        "layers": names,
        "tokens": int(next(key.shape[2] for key in prefix.keys if key is not None)),
        "kv_heads": [layer.kv_heads for layer in winner.model.anatomy.layers],
        "d_head": [layer.d_head for layer in winner.model.anatomy.layers],
        "positions": "the context at 0 … tokens − 1, the content behind it",
        "token_ids": list(winner.record.held),
    }
    (folder / ABOUT).write_text(dumped(about), encoding="utf-8")
    return [_checked(winner, folder, prefix)]


def _names(winner: Winner) -> list[str]:
    places = {id(module): name for name, module in winner.model.hf.named_modules()}
    return [f"{places[id(attention)]}.attn" for attention in winner.model.anatomy.attentions]


def _flat(x: Tensor) -> Tensor:
    """(1, kv_head, token, d_head) to (token, kv_head · d_head)."""
    return x[0].detach().transpose(0, 1).flatten(1).cpu().contiguous()


@torch.no_grad()
def _checked(winner: Winner, folder: Path, prefix: PrefixKV) -> str:
    """Read the files again, and run the base model with them as an ordinary cache."""
    from safetensors.torch import load_file

    model, ids = winner.model, winner.sample()
    pairs = []
    for name, layer in zip(_names(winner), model.anatomy.layers, strict=True):
        kept = load_file(folder / f"{name}.safetensors")[NAME].to(model.device, model.dtype)
        pairs.append(tuple(x.unflatten(1, (layer.kv_heads, -1)).transpose(0, 1)[None] for x in kept))
    length = pairs[0][0].shape[2]
    if any(pair[0].shape != key.shape for pair, key in zip(pairs, prefix.keys, strict=True) if key is not None):
        raise InputError("the self-test failed: the files have other shapes than the context. Nothing was written.")
    cache = cache_of(
        model.hf.config, [(key.expand(2, -1, -1, -1), value.expand(2, -1, -1, -1)) for key, value in pairs]
    )
    mask = torch.ones(2, length + ids.shape[1], dtype=torch.long, device=model.device)
    found = model.hf(input_ids=ids, past_key_values=cache, attention_mask=mask, use_cache=True).logits
    return winner.check_close(found, winner.logits(ids), "the base model, given the files as its cache,", is_moved=True)


def _usage(winner: Winner) -> str:
    return (
        f"One file per layer, `LAYER.safetensors`, with the tensor `{NAME}` (2, token, kv_head · d_head): keys, then "
        f"values. `{ABOUT}` names the layers and the shapes. vLLM's shared-storage connector reads that as it is. Its "
        "newer versions have a head's key and value side by side, (token, kv_head, 2 · d_head):\n\n"
        f"```python\n{SIDE_BY_SIDE}\n```\n\nThe context stands at positions 0 … n−1, so a server puts "
        "it into the first slots of a request, and the content follows. Connectors look a cache up by the token ids "
        "that it stands for: where `token_ids` is empty the numbers are trained, and n ids that no text holds have to "
        "stand for them. Servers that cache whole blocks take a multiple of their block size."
    )


FORM = Form("kv", "keys and values per layer, as a KV connector reads them", _refusal, _write, _usage)
