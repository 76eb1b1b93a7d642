"""Write an artefact and read it again: a folder that holds all that is needed to answer a new row.

    artefact.json               the record (:mod:`elicitable.deploy.record`)
    adapter_config.json, adapter_model.safetensors   where numbers were trained, as PEFT has them
    config.json, model.safetensors, tokenizer files  in their place where every weight was trained: a model folder
    state.safetensors           what the adaptation itself keeps, where nothing of the above gives it back bit for bit

A run holds its winner in ``winner/`` and what was kept beside it in ``kept/METHOD/``; ``tune`` writes an artefact into
its own folder.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elicitable.cache import check_seal, write_tensors
from elicitable.deploy.record import FORM, Record
from elicitable.errors import ElicitableError, InputError, StoreError, UnknownNameError
from elicitable.glance import table
from elicitable.methods.adapter import read_adapter
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.catalog import catalog
from elicitable.methods.folders import CONFIG as ADAPTER
from elicitable.methods.full import read_weights
from elicitable.methods.peft_method import MARK, peft_method
from elicitable.models.in_place import base_weights
from elicitable.records.schema import from_plain, to_plain
from elicitable.untrusted import in_one_line, is_out_of_memory, read_json, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from elicitable.models.model import Model

ARTEFACT, STATE, MODEL = "artefact.json", "state.safetensors", "config.json"
WINNER, KEPT = "winner", "kept"
AGAIN = "Write the artefact again."
Named = str | os.PathLike[str]


@dataclass(frozen=True)
class Artefact:
    """Hold the folder of an artefact and its record; of a plain adapter folder (PEFT's own) there is no record."""

    folder: Path
    record: Record | None = None

    def __repr__(self) -> str:
        """Return what the folder holds in a line."""
        return in_one_line(f"<Artefact {self.folder}{f': {self.record.told}' if self.record else ''}>")

    def _repr_html_(self) -> str:
        """Return the folder and the score of what it holds as a bar, for a notebook."""
        return self.record.picture() if self.record else table(repr(self).strip("<>"), [])

    def adaptation(self, model: Model, methods: Sequence[Method] = (), any_base: bool = False) -> Adaptation:
        """Build what the folder holds, ready for :func:`elicitable.use` with ``model``.

        Args:
            model: the base that it was made for.
            methods: of your own, one of which may have made it.
            any_base: take another base model as well.

        Raises:
            InputError: another base model, a method that is not known, or tensors that do not fit.
        """
        if self.record is not None and not any_base:
            self._check_base(model, self.record)
        with base_weights(model.hf):
            return self._read(model, methods)

    def _read(self, model: Model, methods: Sequence[Method]) -> Adaptation:
        if (self.folder / STATE).is_file() and self.record is not None:
            return self._of_state(model, self.record, methods)
        if (self.folder / ADAPTER).is_file():
            return read_adapter(model, self.folder, methods)
        if (self.folder / MODEL).is_file():
            return read_weights(model, self.folder)
        if self.record is None:
            raise InputError(f"{self.folder} holds neither an artefact nor an adapter.")
        return self._of_state(model, self.record, methods)

    def _of_state(self, model: Model, record: Record, methods: Sequence[Method]) -> Adaptation:
        method = _method_of(record.method, methods)
        layout = record.layout.layout() if record.chose_layout else None
        try:
            return method.again(model, record.size, record.seed, record.setting, layout, _state_in(self.folder))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, ArithmeticError) as error:
            if isinstance(error, ElicitableError) or is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{self.folder}: no {record.method} can be made of it ({reason}). {AGAIN}") from error

    def _check_base(self, model: Model, record: Record) -> None:
        base = record.base
        if base.hash in (model.fingerprint, model.bare_fingerprint):
            if base.written not in ("", model.written):
                raise InputError(
                    f"{self.folder} was made for {base.name} with another chat template or end of text than the "
                    f"tokenizer of {model.name} has now, so rows would be read otherwise. Take the tokenizer that it "
                    "was made with, or say that this one will do: any_base=True (--any-base of predict and export)."
                )
            return
        dtype = str(model.dtype).removeprefix("torch.")
        other = f" in {base.dtype}, and this one is in {dtype}" if base.dtype != dtype else ""
        then = ", ".join(f"{name}={value!r}" for name, value in base.how().items() if name != "device")
        raise InputError(
            f"{self.folder} was made for {base.name} (hash {base.hash}){other}; {model.name} has the hash "
            f"{model.bare_fingerprint}. Load {base.source or base.name} as it was then ({then}), or say "
            "that another base will do: any_base=True (--any-base of predict and export)."
        )


def read(folder: Named, method: str | None = None) -> Artefact:
    """Read an artefact: the folder of a run (its winner, or ``method``), of ``tune``, or any adapter folder.

    Args:
        folder: what ``verdict --out`` or ``tune --out`` wrote, a folder in it, or an adapter folder of PEFT's.
        method: what was kept of a run, by name.

    Raises:
        InputError: there is no such folder (near names are listed), or it holds no artefact and no adapter.
        UnknownNameError: the run did not keep ``method``.
        StoreError: the record is damaged or was altered, or a newer version wrote it.
    """
    path = Path(folder)
    if not os.path.isdir(path):
        raise InputError(_no_folder(path))
    kept: dict[str, Artefact] = {}
    for artefact in kept_in(path):  # the winner comes before what an earlier race kept of the same method
        if artefact.record is not None:
            kept.setdefault(artefact.record.method, artefact)
    if method is not None:
        if method not in kept:
            hint = "Keep it in the race: --keep (keep=)."
            raise UnknownNameError(f"artefact of {path}:", method, kept, hint)
        return kept[method]
    if (path / ARTEFACT).is_file() or (path / WINNER / ARTEFACT).is_file():
        return next(iter(kept.values()))
    if kept:
        raise InputError(f"{path} has no winner; it keeps {', '.join(kept)}: name one of them (--method).")
    if (path / ADAPTER).is_file():
        return Artefact(path)
    inside = sorted(str(one.parent) for one in path.glob(f"*/{ADAPTER}"))
    if inside:
        raise InputError(
            f"{path} holds no adapter itself, and folders in it do; give one of them: {', '.join(inside)}."
        )
    what = "a model, which el.load loads" if (path / MODEL).is_file() else "no artefact and no adapter"
    raise InputError(f"{path} holds {what}; expected a run of verdict or tune, or an adapter folder ({ADAPTER}).")


def kept_in(folder: Path) -> Iterator[Artefact]:
    """Yield the artefacts of a folder: its own, the winner of a run, then what was kept beside it."""
    for place in (folder, folder / WINNER, *sorted((folder / KEPT).glob("*"))):
        if (place / ARTEFACT).is_file():
            yield Artefact(place, _record_in(place))


def write_artefact(model: Model, adaptation: Adaptation, record: Record, folder: Path) -> None:
    """Write an artefact into ``folder``, which exists; meant for the inside of a ``with`` that moves it into place.

    Raises:
        OSError: it cannot be written.
    """
    if not _writes(model, adaptation, folder):
        state = adaptation.state()
        if state:
            write_tensors(folder / STATE, state)
    text = json.dumps(to_plain(record), indent=1, allow_nan=False)
    (folder / ARTEFACT).write_text(text + "\n", encoding="utf-8")


def folder_name(method: str) -> str:
    """Return the folder that a method is kept in: its name, in letters that every file system takes.

    >>> folder_name("lora"), folder_name("mine/of a kind")
    ('lora', 'mine-of-a-kind')
    """
    return re.sub(r"[^\w.-]+", "-", method).strip(".") or "method"


def _writes(model: Model, adaptation: Adaptation, folder: Path) -> bool:
    """Write the adapter or model files of what was trained; say whether reading them gives it back bit for bit."""
    if not adaptation.parameters():
        return False
    try:
        adaptation.write(model, folder)
    except InputError:  # PEFT's layout cannot hold it
        return False
    if not (folder / ADAPTER).is_file():
        return True
    try:
        again = read_adapter(model, folder)
    except InputError:  # of a method of a person's own, which only they can name
        return False
    return _same(again.state(), adaptation.state()) and again.moves_content == adaptation.moves_content


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype and tensor.equal(other[name]) for name, tensor in one.items()
    )


def _method_of(name: str, methods: Sequence[Method]) -> Method:
    if name.startswith(MARK):
        return peft_method(name)
    known = {method.name: method for method in (*catalog(), *methods)}
    if name not in known:
        hint = "A method of your own is named with its file: --method my_method.py:MyMethod (methods=[MyMethod()])."
        raise UnknownNameError("method", name, known, hint)
    return known[name]


def _state_in(folder: Path) -> dict[str, Tensor]:
    path = folder / STATE
    if not path.is_file():
        return {}
    try:
        return read_tensors(path)
    except InputError as error:
        raise StoreError(f"{error}. {AGAIN}") from error


def _record_in(folder: Path) -> Record:
    """Read the record of an artefact; it and the tensors beside it have to be what was written there."""
    path = folder / ARTEFACT
    check_seal(folder, AGAIN, only=(ARTEFACT, STATE))
    try:
        plain = read_json(path)
    except InputError as error:
        raise StoreError(f"{error}. {AGAIN}") from error
    version = plain.get("form_version", FORM) if isinstance(plain, dict) else FORM
    if isinstance(version, int) and version > FORM:
        raise StoreError(
            f"{path} was written by a newer elicitable (form {version}, this one reads {FORM}); update it."
        )
    try:
        return from_plain(Record, plain)
    except InputError as error:
        raise StoreError(f"{path} is no record of an artefact ({error}). {AGAIN}") from error


def _no_folder(path: Path) -> str:
    """Return the message for a folder that there is not, with what is near."""
    parent = path.parent
    others = [one.name for one in parent.iterdir() if one.is_dir()] if os.path.isdir(parent) else []
    near = difflib.get_close_matches(path.name, others, n=3, cutoff=0.5)
    guess = f"; did you mean {' or '.join(str(parent / name) for name in near)}?" if near else "."
    what = "is a file" if os.path.isfile(path) else "there is no such folder"
    return f"{path}: {what}{guess}"
