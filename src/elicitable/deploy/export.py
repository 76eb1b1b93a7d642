"""Export a winner to a form that others serve, with a card, once what was written has answered as the winner does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import output_folder, replacing_folder
from elicitable.deploy.artefact import Artefact, read
from elicitable.deploy.card import card_of
from elicitable.deploy.forms import cache, embeddings, merged, peft, text
from elicitable.deploy.forms.form import Form, Winner
from elicitable.deploy.predict import base_model
from elicitable.errors import InputError, UnknownNameError
from elicitable.models.speed.precision import undisturbed

if TYPE_CHECKING:
    from elicitable.methods.base import Method

FORMS: tuple[Form, ...] = (text.FORM, peft.FORM, merged.FORM, embeddings.FORM, cache.FORM)
CARD = "README.md"


@undisturbed()
def export(
    run: str | os.PathLike[str] | Artefact,
    to: str,
    out: str | os.PathLike[str],
    *,
    method: str | None = None,
    model: Any = None,
    device: str = "auto",
    methods: Sequence[Method] = (),
    any_base: bool = False,
    license: str | None = None,
) -> Path:
    """Write a winner to the folder ``out`` in the form ``to``, with a model card.

    Before the folder takes its place, what was written is read again and has to answer as the winner does; where it
    does not, nothing is left.

    Args:
        run: the folder of a race or a tuning, or an artefact.
        to: ``prompt``, ``peft``, ``merged``, ``prompt-embeds`` or ``kv``.
        out: a folder that is not there yet, or is empty.
        method: what was kept of a run, instead of its winner.
        model, device, methods, any_base: as for :func:`elicitable.predictor`.
        license: of what is exported, for the card; by default unknown.

    Raises:
        UnknownNameError: there is no such form.
        InputError: the winner cannot take it (the message lists those that it can), the folder holds something, or
            the self-test failed.
        StoreError: the folder cannot be written to.
    """
    form = _form(to)
    place = output_folder(out)
    if os.path.exists(place) and (not place.is_dir() or any(place.iterdir())):
        raise InputError(f"{place} is there already; choose another --out.")
    winner = _winner(run, method, model, device, methods, any_base)
    if (why := form.refusal(winner)) is not None:
        can = ", ".join(forms_of(winner)) or "none of the forms"
        raise InputError(f"{winner.record.method} cannot be exported to {form.name}: {why}. It can be to {can}.")
    with replacing_folder(place, "Choose another --out.") as folder:
        tested = form.write(winner, folder)
        (folder / CARD).write_text(card_of(winner, form, tested, license), encoding="utf-8")
    return place


def forms_of(winner: Winner) -> tuple[str, ...]:
    """Return the names of the forms that a winner can take."""
    return tuple(form.name for form in FORMS if form.refusal(winner) is None)


def _form(name: str) -> Form:
    for form in FORMS:
        if form.name == name:
            return form
    raise UnknownNameError("form", name, [form.name for form in FORMS])


def _winner(
    run: str | os.PathLike[str] | Artefact,
    method: str | None,
    model: Any,
    device: str,
    methods: Sequence[Method],
    any_base: bool,
) -> Winner:
    artefact = run if isinstance(run, Artefact) else read(run, method)
    if artefact.record is None:
        raise InputError(f"{artefact.folder} is an adapter without a record; tune or race it first.")
    base = base_model(artefact.record, device, model)
    return Winner(base, artefact.adaptation(base, methods, any_base), artefact.record)
