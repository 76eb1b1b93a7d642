"""Input embeddings, as vLLM's Completions take them: one tensor (token, hidden)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from elicitable.cache import write_tensors
from elicitable.deploy.forms.form import Form, Winner
from elicitable.errors import InputError

NAME = "prompt_embeds"
SAFE, TORCH = f"{NAME}.safetensors", f"{NAME}.pt"


def _refusal(winner: Winner) -> str | None:
    if winner.adaptation.embeddings(winner.model) is None:
        return "it is not made of input embeddings"
    return None


def _write(winner: Winner, folder: Path) -> list[str]:
    from safetensors.torch import load_file

    kept = _embeddings(winner)
    write_tensors(folder / SAFE, {NAME: kept})
    torch.save(kept, folder / TORCH)
    read = [load_file(folder / SAFE)[NAME], torch.load(folder / TORCH, weights_only=True)]
    if not all(one.dtype == kept.dtype and one.equal(kept) for one in read):
        raise InputError("the self-test failed: the embeddings are not read back bit for bit. Nothing was written.")
    ids = winner.sample()
    found = _plainly(winner, read[1].to(winner.model.device), ids)
    wanted = winner.logits(ids)
    return [
        f"both files give the embeddings {tuple(kept.shape)} back bit for bit",
        winner.check_close(found, wanted, "the base model, given the embeddings before a row's,", is_moved=True),
    ]


def _embeddings(winner: Winner) -> Tensor:
    found = winner.adaptation.embeddings(winner.model)
    assert found is not None
    return found.detach().cpu().contiguous()


@torch.no_grad()
def _plainly(winner: Winner, kept: Tensor, ids: Tensor) -> Tensor:
    """Run the base model as a server does: the embeddings of the context, then the row's own, as one sequence."""
    model = winner.model
    own = model.embed(ids)
    whole = torch.cat([kept[None].to(own.dtype).expand(len(ids), -1, -1), own], dim=1)
    logits: Tensor = model.hf(inputs_embeds=whole, use_cache=False).logits
    return logits[:, len(kept) :]


def _usage(winner: Winner) -> str:
    return (
        f"`{SAFE}` (key `{NAME}`) and `{TORCH}` hold the same tensor, (token, hidden). It stands before a row's own "
        "embeddings, which the model's input embedding gives:\n\n"
        "```python\nimport base64, io, torch\n\n"
        f'context = torch.load("{TORCH}", weights_only=True)\n'
        'ids = tokenizer(text_of_the_row, return_tensors="pt")["input_ids"]\n'
        "row = model.get_input_embeddings()(ids)[0].to(context)\n"
        "buffer = io.BytesIO()\ntorch.save(torch.cat([context, row]), buffer)\n"
        f'request = {{"model": MODEL, "prompt": "", "{NAME}": base64.b64encode(buffer.getvalue()).decode()}}\n```\n\n'
        "The server is started with `vllm serve MODEL --enable-prompt-embeds`."
    )


FORM = Form("prompt-embeds", "input embeddings as vLLM's Completions take them", _refusal, _write, _usage)
