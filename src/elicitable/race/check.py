"""Is an adapter sound on this model? One check per promise, each with what was found and what to do.

The numeric checks are those that a method of one's own is held to (:mod:`elicitable.testing`), on the adapter itself.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable import testing
from elicitable.attention.float64 import doubled
from elicitable.deploy.artefact import Artefact, read
from elicitable.errors import ElicitableError, InputError, StoreError
from elicitable.methods.adapter import read_adapter, write_adapter
from elicitable.methods.base import Adaptation
from elicitable.methods.folders import CONFIG, base_of
from elicitable.methods.peft_weights import peft_logits
from elicitable.methods.zero_shot import ZeroShot
from elicitable.models.caches import IMPLEMENTATIONS
from elicitable.models.files import quiet
from elicitable.models.inject import differs_by_item, use
from elicitable.models.load import load
from elicitable.models.speed.precision import undisturbed
from elicitable.race.checked import Checked, Finding
from elicitable.race.trial import elsewhere_nats
from elicitable.training.generate import Stop

if TYPE_CHECKING:
    import os

    from elicitable.deploy.record import Record
    from elicitable.models.model import Model

ENOUGH = 32  # tokens within which a text is expected to end
MOST_FORGOTTEN = 2.0  # nats a token on plain text, beyond which the model is of little use for anything else


class NotApplicableError(Exception):
    """What a check raises where it is not about the adapter; the message says why."""


@dataclass(frozen=True, eq=False)
class Adapter(testing.Subject):
    """An adaptation that is there already, as a subject of the checks of methods.

    ``source`` is what it was read from; None for one that was made in this process. ``before`` is the trace of the
    model as it came.
    """

    adaptation: Adaptation = field(kw_only=True)
    source: Artefact | None = field(default=None, kw_only=True)
    before: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def build(self, seed: int = 0, size: int | None = None) -> Adaptation:
        """Return the adaptation itself."""
        return self.adaptation

    def trained(self, seed: int = 0) -> Adaptation:
        """Return the adaptation itself, or its like for a copy of its model."""
        if getattr(self.adaptation, "home", self.model.hf) is self.model.hf:
            return self.adaptation
        if self.source is None:
            raise NotApplicableError("it was made in this process for this model object alone")
        return self.source.adaptation(self.model, any_base=True)

    def with_it(self, **given: Any) -> Tensor:
        """Return the logits of two short rows with the adapter in use."""
        with use(self.model, self.adaptation):
            return self.logits(**given)


@undisturbed()
def check(model: Any, adapter: str | os.PathLike[str] | Adaptation, *, quick: bool = False) -> Checked:
    """Check that ``adapter`` is sound on ``model``.

    Args:
        model: as for :func:`elicitable.verdict`; it is left as it is.
        adapter: the folder of a run (its winner), of an artefact or of an adapter of PEFT's, or an adaptation. What
            cannot even be read fails the first check.
        quick: only what a few short forward passes tell.

    Raises:
        InputError: there is no such folder, or no model; or the context is another one for each item.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> checked = el.check(model, el.context("kv-prefix", model, length=2, init="random"))
        >>> checked.is_sound
        True
    """
    model, source = load(model), None
    before = {} if quick else testing.trace(model)
    try:
        source = None if isinstance(adapter, Adaptation) else read(adapter)
    except StoreError as error:  # a record that was altered; that there is no folder is the caller's mistake
        return _unread(adapter, model, error)
    try:
        adaptation = adapter if source is None else source.adaptation(model, any_base=True)
    except ElicitableError as error:
        return _unread(adapter, model, error)
    assert isinstance(adaptation, Adaptation)
    if differs_by_item(adaptation):
        raise InputError(f"{adapter} is another context for each item, so there is nothing to check apart from them.")
    subject = Adapter(ZeroShot(), model, adaptation=adaptation, source=source, before=before)
    findings = [Finding("read", "pass", str(adaptation))]
    with quiet():  # some of what is tried here is told to be out of date, and is what others still use
        for name, run, advice in QUICK if quick else (*QUICK, *SLOW):
            findings.append(_finding(name, run, advice, subject))
    return Checked(str(adapter), model.name, tuple(findings))


def _unread(adapter: Any, model: Model, error: ElicitableError) -> Checked:
    advice = "Save the adapter again for this model, or give its own base model."
    return Checked(str(adapter), model.name, (Finding("read", "fail", str(error), advice),))


Check = Callable[[Adapter], str]


def _finding(name: str, run: Check, advice: str, subject: Adapter) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Finding(name, "pass", run(subject))
    except NotApplicableError as reason:
        return Finding(name, "n/a", str(reason))
    except Exception as error:  # whatever goes wrong with an adapter is what was asked for
        said = " ".join(str(error).split()) or type(error).__name__
        return Finding(name, "fail", said, advice)


def _promise(check: Callable[[testing.Subject], None], found: str) -> Check:
    """One of the checks of methods, which return nothing and raise AssertionError."""

    def run(subject: Adapter) -> str:
        check(subject)
        return found

    return run


def _is_of_this_base(subject: Adapter) -> str:
    wanted = None if subject.source is None else _base_of(subject.source)
    if wanted is None:
        raise NotApplicableError("no hash of a base model was kept with it")
    model = subject.model
    same = wanted in (model.fingerprint, model.bare_fingerprint)
    assert same, f"made for the model {wanted}, this one is {model.fingerprint} (weights, their type, tokenizer)"
    return f"the model it was made for ({wanted})"


def _base_of(source: Artefact) -> str | None:
    if source.record is not None:
        return source.record.base.hash
    return base_of(source.folder)


def _is_active(subject: Adapter) -> str:
    plain, found = subject.logits(), subject.with_it()
    finite = bool(torch.isfinite(found).all())
    assert finite, "some logits are not finite"
    tokens = min(plain.shape[-1], found.shape[-1])
    apart = float((found[..., :tokens] - plain[..., :tokens]).abs().max())
    # beyond what sums in another order could make of the same numbers
    least = 1e-6 * float(plain.abs().max())
    if apart <= least and _record(subject) is not None and not subject.adaptation.parameters():
        raise NotApplicableError("it is the model as it is, or a text within the rows")
    assert apart > least or plain.shape != found.shape, f"logits differ by {apart:.1e}, which is nothing"
    return f"logits change by up to {apart:.3g}"


def _record(subject: Adapter) -> Record | None:
    return None if subject.source is None else subject.source.record


def _leaves_no_trace(subject: Adapter) -> str:
    subject.with_it()
    after = testing.trace(subject.model)
    for part, value in subject.before.items():
        assert after[part] == value, f"the model's {part} are not as they were before it was first read and used"
    return "the model is as before it was read and used"


def _is_saved_whole(subject: Adapter) -> str:
    if not subject.adaptation.parameters():
        raise NotApplicableError("it has no numbers to save")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "adapter"
        write_adapter(subject.model, subject.adaptation, folder)
        if not (folder / CONFIG).exists():
            raise NotApplicableError("it is saved as a whole model")
        again = read_adapter(subject.model, folder)
    first = subject.with_it()
    with use(subject.model, again):
        assert torch.equal(subject.logits(), first), "written and read again, it gives other logits"
    return "written and read again, it gives the same bits"


def _is_what_peft_makes_of_it(subject: Adapter) -> str:
    if subject.source is None or not (subject.source.folder / CONFIG).is_file():
        raise NotApplicableError("it is in no adapter folder")
    theirs = peft_logits(subject.model, subject.source.folder, subject.ids)
    if theirs is None:
        raise NotApplicableError("PEFT has no such type")
    ours = subject.with_it()
    apart = float((ours - theirs).abs().max()) / float(theirs.abs().max())
    assert apart <= subject.tolerance, f"logits differ from PEFT's by {apart:.1e} of the largest"
    return f"PEFT's logits, up to {apart:.1e} of the largest"


def _ends(subject: Adapter) -> str:
    """Does generation end by itself, or has the adapter taken the end away: of texts, and of its own answers?"""
    end = subject.model.hf.generation_config.eos_token_id
    ends = {end} if isinstance(end, int) else set(end or ())
    if (record := _record(subject)) is not None and subject.model.tokenizer is not None:
        ends |= Stop.of(subject.model, record.layout.layout()).ids
    if not ends:
        raise NotApplicableError("the model has no end of text")
    plain, plain_odds = _written(subject, ends)
    with use(subject.model, subject.adaptation):
        found, odds = _written(subject, ends)
    if found == 0:
        assert plain == 0, f"no text ends within {ENOUGH} tokens; {plain} of 2 do without the adapter"
        # a thousandth of what it was: no chance of a few tokens more or less takes that away
        lost = f"the end of text has lost {plain_odds - odds:.1f} nats"
        assert odds > plain_odds - math.log(1000), f"no text ends within {ENOUGH} tokens, and {lost}"
        raise NotApplicableError(f"neither with it nor without do these texts end within {ENOUGH} tokens")
    return f"{found} of 2 texts end within {ENOUGH} tokens"


def _written(subject: Adapter, ends: set[int]) -> tuple[int, float]:
    """How many of two rows end, and the largest log-probability of an end on the way, in nats."""
    ids = subject.ids
    with torch.no_grad():
        out = subject.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=ENOUGH,
            do_sample=False,
            pad_token_id=min(ends),
            return_dict_in_generate=True,
            output_logits=True,
        )
    new = out.sequences[:, ids.shape[1] :]
    found = int(torch.isin(new, torch.tensor(sorted(ends), device=new.device)).any(dim=1).sum())
    odds = doubled(torch.stack(out.logits)).log_softmax(-1)[..., sorted(ends)]
    return found, float(odds.max())


def _is_the_same_beside_every_cache(subject: Adapter) -> str:
    refused, tried = [], []
    with use(subject.model, subject.adaptation), _without_new_attributes(subject.model.hf):
        wanted = _tokens(subject, "dynamic")
        for kind in IMPLEMENTATIONS:
            if kind == "dynamic" or ("offloaded" in kind and subject.model.device.type == "cpu"):
                continue
            try:
                found = _tokens(subject, kind)
            except (ElicitableError, ImportError, ValueError) as error:  # transformers' own refusals are plain ones
                refused.append(f"{kind} ({type(error).__name__})")
                continue
            assert torch.equal(found, wanted), f"beside a cache of kind {kind} it writes other tokens"
            tried.append(kind)
    return f"the tokens of the dynamic cache: {', '.join(tried)}" + (f"; refused: {', '.join(refused)}" * bool(refused))


@contextmanager
def _without_new_attributes(hf: Any) -> Iterator[None]:
    """Take away what transformers keeps on a model when it has generated with a static cache."""
    known = set(vars(hf))
    try:
        yield
    finally:
        for name in set(vars(hf)) - known:
            del vars(hf)[name]


def _tokens(subject: Adapter, kind: str) -> Tensor:
    ids = subject.ids
    given = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "cache_implementation": kind}
    with torch.no_grad():
        written: Tensor = subject.model.generate(ids, attention_mask=torch.ones_like(ids), **given)
    return written


def _is_not_forgetful(subject: Adapter) -> str:
    before = elsewhere_nats(subject.model)
    with use(subject.model, subject.adaptation):
        after = elsewhere_nats(subject.model)
    lost = after - before
    assert lost <= MOST_FORGOTTEN, f"plain text costs {lost:+.2f} nats a token more ({before:.2f} without)"
    return f"plain text costs {lost:+.2f} nats a token ({before:.2f} without)"


def _can_be_trained_with_checkpoints(subject: Adapter) -> str:
    if not subject.adaptation.parameters():
        raise NotApplicableError("it has no numbers to train")
    if not getattr(subject.model.hf, "supports_gradient_checkpointing", False):
        raise NotApplicableError("the model does not support it")
    testing.check_gradient_checkpointing_gives_the_same_gradients(subject)
    return "the same gradients with gradient checkpointing"


_SAVED = "Save it again; a file that was cut off or edited cannot be mended."
_ROWS = "Its effect depends on other rows or on padding: answer one text at a time, or report the method that made it."
_LEFT = "It leaves something behind in the model: load the model again, and report the method that made it."
QUICK: tuple[tuple[str, Check, str], ...] = (
    ("base model", _is_of_this_base, "Load the model that it was made for; on another one its numbers mean nothing."),
    (
        "active",
        _is_active,
        "It does nothing: train it longer or at a higher rate, or look for the file that was meant.",
    ),
    ("padding", _promise(testing.check_left_padding_changes_nothing, "padding changes nothing"), _ROWS),
    ("batch", _promise(testing.check_batch_size_changes_nothing, "rows do not depend on each other"), _ROWS),
    (
        "strength 0",
        _promise(testing.check_strength_zero_is_the_base_model, "bit-equal to the base model"),
        _LEFT,
    ),
)
SLOW: tuple[tuple[str, Check, str], ...] = (
    ("left behind", _leaves_no_trace, _LEFT),
    (
        "generate",
        _promise(testing.check_generate_equals_teacher_forcing, "generate writes what forward finds most likely"),
        "Scores from forward passes will not hold for written answers: report the method that made it.",
    ),
    ("stops", _ends, "Train it on answers with their end, or give generate a stop string and a limit of tokens."),
    ("saved", _is_saved_whole, _SAVED),
    ("PEFT", _is_what_peft_makes_of_it, "Do not serve it through PEFT before the difference is understood."),
    ("checkpointing", _can_be_trained_with_checkpoints, "Train it without gradient checkpointing."),
    ("caches", _is_the_same_beside_every_cache, "Generate with the dynamic cache."),
    ("forgetting", _is_not_forgetful, "Use it for its task alone, or train it more gently (lower rate, fewer steps)."),
)
