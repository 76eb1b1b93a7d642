"""An adapter folder that PEFT loads on the base model."""

from __future__ import annotations

from pathlib import Path

import torch

from elicitable.deploy.forms.form import Form, Winner
from elicitable.errors import InputError
from elicitable.methods.adapter import read_adapter
from elicitable.methods.folders import CONFIG, OWN_TYPE


def _refusal(winner: Winner) -> str | None:
    if not winner.adaptation.parameters():
        return "nothing is trained, so there is no adapter"
    try:
        config, _ = winner.adaptation.folder_form(winner.model)
    except InputError as error:
        return str(error).rstrip(".")
    if config.get("peft_type") == OWN_TYPE:
        return "PEFT has no type for it"
    return None


def _write(winner: Winner, folder: Path) -> list[str]:
    winner.adaptation.write(winner.model, folder)
    again = read_adapter(winner.model, folder)
    ids = winner.sample()
    wanted = winner.logits(ids)
    with torch.no_grad():
        found = Winner(winner.model, again, winner.record).logits(ids)
    return [winner.check_close(found, wanted, "the folder, read again,")]


def _usage(winner: Winner) -> str:
    return (
        "```python\nfrom peft import AutoPeftModelForCausalLM\n\n"
        'model = AutoPeftModelForCausalLM.from_pretrained("THIS FOLDER")\n```\n\n'
        f"The base model is named in `{CONFIG}`."
    )


FORM = Form("peft", "an adapter folder that PEFT loads on the base model", _refusal, _write, _usage)
