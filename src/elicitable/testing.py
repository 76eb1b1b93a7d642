"""The contract of a method as a suite that runs from outside, for a method of your own.

    from elicitable.testing import check_method
    check_method(MyMethod(), model)          # raises AssertionError, naming the promise that is broken

Or one test per promise, with pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_method(check):
        check(Subject(MyMethod(), model))

Small models are best: every check runs the model a few times. In float64 the numeric checks are sharpest. What is
measured against what stands in each check's first line; ``Subject.tolerance`` says how far sums may differ that are
only taken in another order.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elicitable.errors import BudgetError
from elicitable.methods.adapter import read_adapter, write_adapter
from elicitable.methods.base import Adaptation, Method, Sized
from elicitable.methods.prompt import Prompt
from elicitable.models.dispatch import state_of
from elicitable.models.inject import use
from elicitable.models.model import Model, as_model
from elicitable.models.rounding import rounding
from elicitable.models.speed.precision import autocast, product_type
from elicitable.rng import torch_generator
from elicitable.training.batches import encode
from elicitable.training.evaluate import answer_logits, token_losses
from elicitable.training.loop import prepared
from elicitable.values import Item

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-4}  # norms and rotary angles are computed in float32 by many models
ROUNDED = 2e-2  # in 16-bit types, and where products of float32 are rounded as theirs are


@dataclass(frozen=True, eq=False)
class Subject:
    """A method on a model, and how it is built for the checks.

    ``size`` is the size that is built, and ``options`` are further arguments of ``method.build``, for a method that
    cannot do without. ``tolerance`` is the largest difference of two logits, as a share of the largest, that counts as
    the same computation in another order.
    """

    method: Method
    model: Model
    size: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not self.tolerance:
            is_lowered = rounding(self.model) > torch.finfo(torch.float32).eps
            object.__setattr__(self, "tolerance", ROUNDED if is_lowered else TOLERANCE[self.model.dtype])

    def build(self, seed: int = 0, size: int | None = None) -> Adaptation:
        """Return a fresh adaptation."""
        return self.method.build(self.model, self.size if size is None else size, seed, **self.options)

    def trained(self, seed: int = 0) -> Adaptation:
        """Return an adaptation all of whose numbers have moved, so that no start at zero hides what it does."""
        adaptation = self.build(seed)
        drawn = torch_generator(seed, "moved", self.method.name)
        with torch.no_grad():
            for parameter in adaptation.parameters():
                moved = 0.1 * torch.randn(parameter.shape, generator=drawn, dtype=torch.float64)
                parameter.add_(moved.to(parameter))
        return adaptation

    @property
    def ids(self) -> Tensor:
        """Two rows of six tokens, the same on every call."""
        drawn = torch.randint(self.model.anatomy.vocab, (2, 6), generator=torch_generator(0, "check", "ids"))
        return drawn.to(self.model.device)

    @property
    def items(self) -> list[Item]:
        """Three items of token ids; the last is shorter, so that a batch of them is padded."""
        rows = [tuple(row) for row in self.ids.tolist()]
        return [Item(rows[0][:4], rows[0][4:]), Item(rows[1][:4], rows[1][4:]), Item(rows[0][1:3], rows[1][:2])]

    def logits(self, ids: Tensor | None = None, **given: Any) -> Tensor:
        """Return the model's logits, with whatever is in use."""
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=self.ids if ids is None else ids, **given).logits
        return logits


def check_method(
    method: Method, model: Any, *, size: int = 3, tolerance: float = 0.0, **options: Any
) -> tuple[str, ...]:
    """Run every check of :data:`CHECKS` that applies to ``method`` on ``model``; return the names of those that ran.

    Args:
        method: the method itself, not its class.
        model: from :func:`elicitable.load`, or a transformers model; small, and best in float64.
        size: virtual tokens or rank that is built.
        tolerance: see :class:`Subject`; by default what the model's type allows.
        options: further arguments of ``method.build``, for a method that cannot do without.

    Raises:
        AssertionError: a promise is broken; the message names the check and what differed.

    Example:
        >>> import elicitable as el
        >>> from elicitable.methods.kv_prefix import KVPrefix
        >>> len(check_method(KVPrefix(), el.load("toy:ascending", dtype="float64"))) > 10
        True
    """
    subject = Subject(method, as_model(model), size, options, tolerance)
    ran = [check for check in CHECKS if applies(check, method)]
    for check in ran:
        try:
            check(subject)
        except AssertionError as error:
            raise AssertionError(f"{method.name} on {subject.model.name}, {check.__name__}: {error}") from error
    return tuple(check.__name__ for check in ran)


def applies(check: Callable[[Subject], None], method: Method) -> bool:
    """Whether a check is about ``method``: those of training are not about a method that is chosen."""
    return method.is_trained or check not in ONLY_TRAINED


# --- what the method says of itself -----------------------------------------------------------------------------------


def check_it_says_what_it_is(subject: Subject) -> None:
    """A name, a summary, a rung, and learning rates that rise."""
    method = subject.method
    assert method.name, "a method needs a name"
    assert method.summary, "a method needs a summary"
    assert method.rung.label, "a method's rung needs a label"
    if method.schedule is not None:
        rates = method.schedule.learning_rates
        assert rates, "a trained method needs learning rates to sweep"
        assert list(rates) == sorted(set(rates)), f"learning rates must rise, got {rates}"
        assert min(rates) > 0, f"learning rates must be more than 0, got {rates}"


# --- the model is left as it came -------------------------------------------------------------------------------------


def check_the_model_is_left_as_it_came(subject: Subject) -> None:
    """Building, using and preparing change neither bytes nor modules, hooks, modes or gradients of the model."""
    plain = subject.logits()
    with unchanged(subject.model):
        adaptation = subject.trained()
        with use(subject.model, adaptation):
            subject.logits()
        with prepared(subject.model, adaptation) as refresh, autocast(subject.model):
            refresh()
            subject.logits()
    assert torch.equal(subject.logits(), plain), "the base model gives other logits afterwards"


def check_an_exception_inside_leaves_the_model_as_it_came(subject: Subject) -> None:
    """The same where what happens inside ends in an exception."""
    adaptation = subject.trained()
    for enter in (use, prepared):
        with unchanged(subject.model):
            try:
                with enter(subject.model, adaptation):
                    raise _StoppedError
            except _StoppedError:
                pass


def check_the_global_generator_is_left_alone(subject: Subject) -> None:
    """Whatever is drawn comes from generators of its own."""
    state = torch.get_rng_state()
    with use(subject.model, subject.build()):
        subject.logits()
    assert torch.equal(torch.get_rng_state(), state), "torch's global generator has moved on"


# --- training touches what it should ----------------------------------------------------------------------------------


def check_gradients_flow_only_where_they_belong(subject: Subject) -> None:
    """Every trained number is reached by a gradient and no other number is."""
    model, adaptation = subject.model, subject.trained()
    own = set(map(id, adaptation.parameters()))
    base = [p for p in model.hf.parameters() if id(p) not in own]
    batch = encode(model, subject.items)
    with prepared(model, adaptation) as refresh:
        refresh()
        inside = set(map(id, model.hf.parameters()))
        assert not any(p.requires_grad for p in base if id(p) in inside), "the base model's weights want gradients"
        with autocast(model):
            logits = answer_logits(model, batch)
        loss = token_losses(logits, batch.targets).sum()
        assert loss.requires_grad, "no gradient reaches what is trained"
        loss.backward()
    assert all(p.grad is None for p in base), "the base model's weights got gradients"
    assert all(p.grad is not None for p in adaptation.parameters()), "a trained number got no gradient"
    assert any(bool(p.grad.abs().max() > 0) for p in adaptation.parameters() if p.grad is not None), (
        "all gradients are 0"
    )
    for parameter in adaptation.parameters():
        parameter.grad = None


def check_the_closed_form_counts_what_is_trained(subject: Subject) -> None:
    """``numbers(model, size)`` is how many numbers the adaptation of that size trains."""
    for size in (1, 3) if subject.method.has_size else (1,):
        adaptation = subject.build(size=size)
        counted = sum(p.numel() for p in adaptation.parameters())
        said = subject.method.numbers(subject.model, size)
        assert said == counted, f"numbers(model, {size}) says {said}, the adaptation trains {counted}"
        assert adaptation.budget().numbers_trained == counted


def check_the_budget_is_used_up_and_never_passed(subject: Subject) -> None:
    """The size that fits a budget trains at most so many numbers, and one more size would be too many."""
    method, model = subject.method, subject.model
    one = method.numbers(model, 1)
    sized = method.fitting(model, 5 * one + one // 2)
    assert sized.numbers == method.numbers(model, sized.size)
    if not method.is_bound:
        return
    assert method.has_size or sized.size == 1, f"a method without a size was given size {sized.size}"
    assert -1 < sized.mismatch <= 0, f"a budget of {sized.budget} is not kept by {sized.numbers} numbers"
    if method.has_size:
        assert method.numbers(model, 2) > one, "a larger size trains no more numbers"
        more = method.numbers(model, sized.size + 1)
        assert more > sized.budget or more <= sized.numbers, "a larger size would still fit the budget"
    try:
        method.fitting(model, one - 1)
    except BudgetError:
        return
    raise AssertionError("a budget below size 1 is not refused")


def check_other_starts_are_plain_options_within_the_budget(subject: Subject) -> None:
    """Each of ``starts`` and ``start_at`` can be hashed, which workers ask for, and builds what the budget pays for."""
    method, model = subject.method, subject.model
    numbers = method.numbers(model, subject.size)
    sized = Sized(method, subject.size, numbers, numbers)
    starts = [*method.starts(model), method.start_at(model, subject.size, Prompt().build(model, token_ids=[1, 2]))]
    for options in filter(None, starts):
        try:
            hash(tuple(options.items()))
        except TypeError as error:
            raise AssertionError(f"the start {options} is no plain data that can be hashed: {error}") from error
        begun = method.begun(model, sized, options)
        if begun.size:
            adaptation = method.made(model, begun.size, seed=0, **{**subject.options, **options})
            trained = adaptation.budget().numbers_trained
            assert trained <= numbers, f"started by {options} it trains {trained} numbers, {numbers} are allowed"


def check_a_folder_holds_it_whole(subject: Subject) -> None:
    """What is written as an adapter folder and read again gives the same logits, up to positions in float32."""
    adaptation = subject.trained()
    with tempfile.TemporaryDirectory() as folder:
        write_adapter(subject.model, adaptation, Path(folder) / "adapter")
        if not (Path(folder) / "adapter" / "adapter_config.json").exists():  # a whole model, read by loading it
            return
        again = read_adapter(subject.model, Path(folder) / "adapter", [subject.method])
    with use(subject.model, adaptation):
        wanted = subject.logits()
    with use(subject.model, again):
        _same(subject.logits(), wanted, max(subject.tolerance, 2e-5), "the folder gives other logits")


# --- bytes ------------------------------------------------------------------------------------------------------------


def check_state_and_load_round_trip(subject: Subject) -> None:
    """``load(state())`` into another adaptation gives the same logits, bit for bit."""
    adaptation, other = subject.trained(seed=0), subject.trained(seed=1)
    with use(subject.model, adaptation):
        wanted = subject.logits()
    other.load(adaptation.state())
    with use(subject.model, other):
        assert torch.equal(subject.logits(), wanted), "after load(state()) the logits are others"
    for mine, theirs in zip(adaptation.state().values(), other.state().values(), strict=True):
        assert torch.equal(mine, theirs), "after load(state()) the state is another"


def check_what_is_kept_gives_it_back(subject: Subject) -> None:
    """``again`` builds from its setting, its layout and its tensors what an artefact keeps, bit for bit."""
    adaptation = subject.trained()
    kept = adaptation.setting, adaptation.layout, adaptation.state()
    again = subject.method.again(subject.model, subject.size, 1, *kept)
    assert again.layout == adaptation.layout, "the layout is another"
    with use(subject.model, adaptation):
        wanted = subject.logits()
    with use(subject.model, again):
        assert torch.equal(subject.logits(), wanted), "what is built again from what was kept gives other logits"


def check_the_same_seed_gives_the_same_bytes(subject: Subject) -> None:
    """Two builds from one seed are equal."""
    one, again = (list(subject.build(seed=3).state().values()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True)), "one seed gave different bytes"


# --- what the model computes does not depend on how it is asked -------------------------------------------------------


def check_left_padding_changes_nothing(subject: Subject) -> None:
    """Rows of a left-padded batch have the logits that they have alone."""
    ids, model = subject.ids, subject.model
    rows = (ids[0], ids[1, :4], ids[1])
    padded, mask = ids.new_zeros(3, 9), ids.new_ones(3, 9)
    for row, own in enumerate(rows):
        padded[row, -len(own) :], mask[row, : 9 - len(own)] = own, 0
    with use(model, subject.trained()):
        together = subject.logits(padded, attention_mask=mask)
        for row, own in enumerate(rows):
            alone = subject.logits(own[None])[0]
            _same(together[row, -len(own) :], alone, subject.tolerance, f"row {row} of a padded batch")


def check_batch_size_changes_nothing(subject: Subject) -> None:
    """Rows of a batch have the logits that they have alone."""
    with use(subject.model, subject.trained()):
        together = subject.logits(subject.ids.repeat(3, 1))
        for row in range(6):
            alone = subject.logits(subject.ids[row % 2][None])[0]
            _same(together[row], alone, subject.tolerance, f"row {row} of a batch of 6")


def check_generate_equals_teacher_forcing(subject: Subject) -> None:
    """Greedy generation, with and without a cache, writes what teacher forcing finds most likely."""
    model, ids = subject.model, subject.ids
    config = model.hf.generation_config
    before, config.eos_token_id = config.eos_token_id, None  # so that it writes on
    try:
        with use(model, subject.trained()):
            for use_cache in (True, False):
                given = {"max_new_tokens": 4, "do_sample": False, "use_cache": use_cache, "pad_token_id": 0}
                written = model.generate(ids, attention_mask=torch.ones_like(ids), **given)
                forced = subject.logits(written)[:, ids.shape[1] - 1 : -1].argmax(-1)
                same = torch.equal(forced, written[:, ids.shape[1] :])
                assert same, f"generate(use_cache={use_cache}) wrote other tokens than teacher forcing"
    finally:
        config.eos_token_id = before


def check_logits_are_as_long_as_the_labels(subject: Subject) -> None:
    """A context adds no positions to the logits."""
    with torch.no_grad(), use(subject.model, subject.trained()):
        out = subject.model(input_ids=subject.ids, labels=subject.ids)
    assert out.logits.shape[:2] == subject.ids.shape, (
        f"logits of {tuple(out.logits.shape)} for {tuple(subject.ids.shape)}"
    )


def check_strength_zero_is_the_base_model(subject: Subject) -> None:
    """At strength 0 the logits are the base model's, bit for bit."""
    plain = subject.logits()
    with use(subject.model, subject.trained(), strength=0.0):
        assert torch.equal(subject.logits(), plain), "strength 0 changes the logits"


def check_gradient_checkpointing_gives_the_same_gradients(subject: Subject) -> None:
    """Recomputing the layers on the way back changes no gradient: in training mode, and inside a training here."""
    if not getattr(subject.model.hf, "supports_gradient_checkpointing", False):
        return
    subject = replace(
        subject, model=Model(copy.deepcopy(subject.model.hf), name=subject.model.name)
    )  # it leaves traces
    _without_dropout(subject.model)
    adaptation = subject.trained()
    plain, prepared_plain = _gradients(subject, adaptation), _prepared_gradients(subject, adaptation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # renamed in newer versions than the oldest we allow
        subject.model.hf.gradient_checkpointing_enable()
    subject.model.hf.train()
    _same_gradients(_gradients(subject, adaptation), plain, subject.tolerance)
    # beside checkpointed layers frozen ones are not put together, and lowered products are rounded elsewhere
    slack = ROUNDED if product_type(subject.model) != subject.model.dtype else 0.0
    _same_gradients(_prepared_gradients(subject, adaptation), prepared_plain, max(subject.tolerance, slack))


# --- tools ------------------------------------------------------------------------------------------------------------


class _StoppedError(Exception):
    """What the checks raise inside a ``with``."""


@contextmanager
def unchanged(model: Model) -> Iterator[None]:
    """Inside anything may happen; afterwards the model is compared with what it was, part by part."""
    before = trace(model)
    yield
    after = trace(model)
    for part, value in before.items():
        assert after[part] == value, f"the model's {part} are not as they were"


def trace(model: Model) -> dict[str, Any]:
    """Return everything of a model that a method could leave behind."""
    hf = model.hf
    digest = hashlib.sha256()
    for _, weight in state_of(hf):
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "bytes": digest.hexdigest(),
        "attention": hf.config._attn_implementation,
        "config": hf.config.to_dict(),
        "modules": [(name, id(module)) for name, module in hf.named_modules()],
        "parameters": [(name, id(p) * (not p.is_meta), p.requires_grad) for name, p in hf.named_parameters()],
        "gradients": [name for name, p in hf.named_parameters() if p.grad is not None],
        "training modes": [module.training for module in hf.modules()],
        "attributes": [sorted(set(vars(module)) - {"_elicitable_model"}) for module in hf.modules()],
        "hooks": {kind: [len(getattr(module, kind)) for module in hf.modules()] for kind in kinds},
    }


def _same(found: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    apart = float((found - wanted).abs().max()) / float(wanted.abs().max())
    assert apart <= tolerance, f"{what}: logits differ by {apart:.1e} of the largest, {tolerance:.1e} is allowed"


def _without_dropout(model: Model) -> None:
    """Make a model compute the same function in training mode as in evaluation mode."""
    for module in model.hf.modules():
        for name in ("p", "dropout", "attention_dropout", "activation_dropout", "layerdrop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _gradients(subject: Subject, adaptation: Adaptation) -> list[Tensor]:
    with use(subject.model, adaptation):
        logits = subject.model(input_ids=subject.ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), subject.ids.flatten())
        found = torch.autograd.grad(loss, adaptation.parameters(), allow_unused=True)
    return [torch.zeros(1) if gradient is None else gradient for gradient in found]


def _prepared_gradients(subject: Subject, adaptation: Adaptation) -> list[Tensor]:
    """The gradients of a training step."""
    batch = encode(subject.model, subject.items)
    with prepared(subject.model, adaptation) as refresh, autocast(subject.model):
        refresh()
        loss = token_losses(answer_logits(subject.model, batch), batch.targets).sum()
        found = torch.autograd.grad(loss, adaptation.parameters(), allow_unused=True)
    return [torch.zeros(1) if gradient is None else gradient for gradient in found]


def _same_gradients(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    largest = max(float(gradient.abs().max()) for gradient in wanted)
    for one, two in zip(wanted, found, strict=True):
        apart = float((one - two).abs().max())
        assert apart <= tolerance * largest, f"gradients differ by {apart:.1e} of {largest:.1e}"


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_it_says_what_it_is,
    check_the_model_is_left_as_it_came,
    check_an_exception_inside_leaves_the_model_as_it_came,
    check_the_global_generator_is_left_alone,
    check_gradients_flow_only_where_they_belong,
    check_the_closed_form_counts_what_is_trained,
    check_the_budget_is_used_up_and_never_passed,
    check_other_starts_are_plain_options_within_the_budget,
    check_a_folder_holds_it_whole,
    check_state_and_load_round_trip,
    check_what_is_kept_gives_it_back,
    check_the_same_seed_gives_the_same_bytes,
    check_left_padding_changes_nothing,
    check_batch_size_changes_nothing,
    check_generate_equals_teacher_forcing,
    check_logits_are_as_long_as_the_labels,
    check_strength_zero_is_the_base_model,
    check_gradient_checkpointing_gives_the_same_gradients,
)
ONLY_TRAINED = (
    check_gradients_flow_only_where_they_belong,
    check_the_closed_form_counts_what_is_trained,
    check_the_budget_is_used_up_and_never_passed,
    check_other_starts_are_plain_options_within_the_budget,
    check_a_folder_holds_it_whole,
    check_gradient_checkpointing_gives_the_same_gradients,
)
