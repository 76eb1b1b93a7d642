"""An adapter folder that PEFT loads on the base model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from elicitable.deploy.forms.form import Form, Winner
from elicitable.deploy.forms.text import usage_beside, write_beside
from elicitable.errors import InputError
from elicitable.methods.adapter import read_adapter
from elicitable.methods.folders import CONFIG, OWN_TYPE


def _refusal(winner: Winner) -> str | None:
    adaptation = winner.trained.adaptation
    if not adaptation.parameters():
        return "nothing is trained, so there is no adapter"
    try:
        config, _ = adaptation.folder_form(winner.model)
    except InputError as error:
        return str(error).rstrip(".")
    if config.get("peft_type") == OWN_TYPE:
        return "PEFT has no type for it"
    return None


def _write(winner: Winner, folder: Path) -> list[str]:
    trained = winner.trained
    trained.adaptation.write(winner.model, folder)
    again = read_adapter(winner.model, folder)
    ids = winner.sample()
    wanted = trained.logits(ids)
    with torch.no_grad():
        found = replace(winner, adaptation=again).logits(ids)
    return [winner.check_close(found, wanted, "the folder, read again,"), *write_beside(winner, folder)]


def _usage(winner: Winner) -> str:
    return (
        "```python\nfrom peft import AutoPeftModelForCausalLM\n\n"
        'model = AutoPeftModelForCausalLM.from_pretrained("THIS FOLDER")\n```\n\n'
        f"The base model is named in `{CONFIG}`.{usage_beside(winner)}"
    )


FORM = Form("peft", "an adapter folder that PEFT loads on the base model", _refusal, _write, _usage)
