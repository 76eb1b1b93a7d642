"""Input embeddings, as vLLM's Completions take them: one tensor (token, hidden)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from elicitable.cache import write_tensors
from elicitable.deploy.forms.form import Form, Winner
from elicitable.errors import InputError
from elicitable.models.layout import before_content, start_ids

NAME = "prompt_embeds"
SAFE, TORCH = f"{NAME}.safetensors", f"{NAME}.pt"
TEXT = "context.txt"  # what a text's embeddings are of


def _refusal(winner: Winner) -> str | None:
    if winner.adaptation.embeddings(winner.model) is None:
        return "it is not made of input embeddings"
    return None


def _write(winner: Winner, folder: Path) -> list[str]:
    from safetensors.torch import load_file

    kept = _embeddings(winner)
    if winner.record.held:
        text = before_content(winner.model, winner.record.layout.layout())
        (folder / TEXT).write_text(text, encoding="utf-8", newline="")
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
        f"{_ids_of_the_row(winner)}"
        "row = model.get_input_embeddings()(ids)[0].to(context)\n"
        "buffer = io.BytesIO()\ntorch.save(torch.cat([context, row]), buffer)\n"
        f'request = {{"model": MODEL, "prompt": "", "{NAME}": base64.b64encode(buffer.getvalue()).decode()}}\n```\n\n'
        "The server is started with `vllm serve MODEL --enable-prompt-embeds`."
    )


def _ids_of_the_row(winner: Winner) -> str:
    """Return the lines of the card that give a row's ids as the race read them.

    A context of text holds the first ids of the whole text, its start included, so they are not put before the row
    again; and the whole is tokenized, since a tokenizer may join characters across the border.
    """
    record = winner.record
    if record.form.ids:
        return "ids = torch.tensor([ids_of_the_row])\n"
    start = start_ids(winner.model, record.layout.layout())
    lines = ["text = text_of_the_row"]
    if record.held:
        lines = [f'with open("{TEXT}", "rb") as file:', "    text = file.read().decode() + text_of_the_row"]
    lines += ['ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]']
    lines += [f"ids = torch.cat([torch.tensor([{start}]), ids], dim=1)"] if start else []
    lines += ["ids = ids[:, len(context) :]  # those before are the context's"] if record.held else []
    return "".join(f"{line}\n" for line in lines)


FORM = Form("prompt-embeds", "input embeddings as vLLM's Completions take them", _refusal, _write, _usage)
