"""The lines of a card that make a request of embeddings, run as they stand, ask what the run itself asked."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

import elicitable as el
from elicitable.deploy.forms import embeddings
from elicitable.deploy.forms.form import Winner
from elicitable.deploy.record import Laid
from elicitable.methods.prompt import Prompt
from elicitable.methods.soft_prompt import SoftPrompt
from elicitable.models.layout import Layout
from elicitable.models.model import Model
from elicitable.models.rows import rows_of
from elicitable.values import Item

ROWS = [{"text": f"{a}{b}", "label": "yes" if a < b else "no"} for a in "abcdefgh" for b in "ijklabcd"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A record to put other layouts and contexts into."""
    from tests.deploy.conftest import save_letters

    place = tmp_path_factory.mktemp("kept")
    model = str(save_letters(place / "model"))
    el.verdict(model, ROWS, methods=["zero-shot"], seeds=1, test_items=8, out=place / "run")
    record = el.read(place / "run").record
    assert record is not None
    return record


@pytest.fixture
def model(letters_model: Callable[..., Model]) -> Model:
    """A tokenizer with a start token, of which an end token is also put behind a text, and that joins a blank."""
    model = letters_model(has_start=True)
    letters = [chr(ord("a") + nth) for nth in range(26)]
    pieces = ["<s>", *letters[:8], *(f" {one}" for one in letters[:8]), ":", " ", "?"]
    tokens = Tokenizer(WordLevel({piece: nth for nth, piece in enumerate(pieces)}, unk_token="?"))
    tokens.pre_tokenizer = Split(Regex(" ?[a-z]|[^a-z]"), "isolated")  # type: ignore[assignment]
    tokens.post_processor = TemplateProcessing(single="<s> $A ?", special_tokens=[("<s>", 0), ("?", len(pieces) - 1)])
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>")
    return model


def asked_by_the_card(winner: Winner, row: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The (token, hidden) embeddings that the lines of the card send."""
    embeddings.FORM.write(winner, folder)
    [code] = re.findall(r"```python\n(.*?)```", embeddings.FORM.usage(winner), re.DOTALL)
    given = {"tokenizer": winner.model.tokenizer, "model": winner.model.hf, "text_of_the_row": row, "MODEL": "m"}
    monkeypatch.chdir(folder)
    exec(code, given)  # as a person runs it
    request: Any = given["request"]
    sent = base64.b64decode(request["prompt_embeds"])
    return torch.load(io.BytesIO(sent), weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("start", ["own", "none", "bos"])
@pytest.mark.parametrize("method", ["prompt", "soft-prompt"])
def test_the_lines_of_a_card_ask_what_the_run_asked(
    method: str, start: Any, model: Model, kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, item = Layout(start=start), Item("cab:", "a")
    context: Any = Prompt().build(model, text="ab ", layout=layout)
    if method == "soft-prompt":
        context = SoftPrompt().build(model, 2, 0, init="random")
    context.fit(model, [item])
    layout, held = context.layout or layout, context.held()
    winner = Winner(model, context, replace(kept, layout=Laid.of(layout), held=held))
    sent = asked_by_the_card(winner, "cab:", tmp_path, monkeypatch)
    ids = rows_of(model, [item], layout, held=held)[0].content
    wanted = torch.cat([context.embeddings(model), model.embed(model.ids(ids))[0].to(sent)])
    assert sent.equal(wanted.to(sent))
    with torch.no_grad(), el.use(model, context):
        answered = model(input_ids=model.ids(ids)).logits[0, -1]
    with torch.no_grad():
        found = model.hf(inputs_embeds=sent[None].to(model.dtype)).logits[0, -1]
    assert torch.allclose(found, answered, rtol=0, atol=1e-5 * float(answered.abs().max()))
    assert ("context.txt" in os.listdir(tmp_path)) is (method == "prompt")
    assert "<s>" not in model.tokenizer.convert_ids_to_tokens(ids[1:])
