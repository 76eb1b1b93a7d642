"""A method of one's own is raced, judged, shown, tuned, written, read and checked like a built-in one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import elicitable as el
from elicitable.errors import InputError, UnknownNameError
from elicitable.methods.adapter import read_adapter
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.methods.catalog import METHODS
from elicitable.report.html import report_html
from elicitable.report.table import print_verdict
from elicitable.report.verdict_json import verdict_from_json, verdict_to_json
from elicitable.testing import CHECKS, ONLY_TRAINED, Subject, check_method
from elicitable.values import PrefixKV, Rung

STEERING = Rung(4.5, "steering", "other", "Steering is enough for {task} on {model}.", ("Ship the {vectors}.",))


class Scaled(Adaptation):
    """One key and value per layer out of one table of (layer, 2·d) numbers each head shares."""

    kind = "one-key"

    def __init__(self, table: Tensor, **setting: Any) -> None:
        super().__init__(**setting)
        self.table = nn.Parameter(table)

    def prefix(self, model: Any, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
        keys, values = [], []
        for row, layer in zip(self.table, model.anatomy.layers, strict=True):
            key, value = row[: layer.d_head], row[layer.d_head :]
            keys.append(key.expand(1, layer.kv_heads, 1, layer.d_head))
            values.append(value.expand(1, layer.kv_heads, 1, layer.d_value))
        return PrefixKV(tuple(keys), tuple(values), positions=torch.tensor([[-1]]))

    def parameters(self) -> list[nn.Parameter]:
        return [self.table]

    def keys_per_layer(self) -> int:
        return 1


class OneKey(Method):
    """One shared key and value per layer."""

    name = "one-key"
    summary = "one key and value per layer that all heads share"
    rung = STEERING
    schedule = Schedule(learning_rates=(1e-1, 3e-1))
    deployment = "Any server that loads a prefix."
    has_size = False

    def numbers(self, model: Any, size: int = 1) -> int:
        return sum(layer.d_head + layer.d_value for layer in model.anatomy.layers)

    def build(self, model: Any, size: int = 1, seed: int = 0, **options: Any) -> Scaled:
        layer = model.anatomy.layers[0]
        drawn = torch.Generator().manual_seed(seed)
        table = torch.randn(model.anatomy.depth, layer.d_head + layer.d_value, generator=drawn)
        return Scaled(table.to(model.device, model.trainable_dtype))


@pytest.fixture(scope="module")
def answer() -> Any:
    return el.verdict(
        "toy:ascending",
        "ascending",
        methods=["zero-shot", OneKey(), "lora"],
        budget=4000,
        steps=4,
        seeds=1,
        test_items=64,
    )


def test_it_is_raced_and_judged_on_its_own_rung(answer: Any) -> None:
    assert [arm.method for arm in answer.arms] == ["zero-shot", "one-key", "lora"]
    own = answer.arms[1]
    assert (own.status, own.rung, own.rung.group) == ("ok", STEERING, "other")
    assert own.budget.numbers_trained == OneKey().numbers(el.load("toy:ascending"))
    assert len(own.behind) == 3  # it has its part in the decision


def test_it_is_the_verdict_where_nothing_less_suffices() -> None:
    answer = el.verdict("toy:ascending", "ascending", methods=[OneKey()], steps=2, seeds=1, test_items=64)
    assert (answer.label, answer.answer) == ("steering", "one-key")


def test_table_json_and_report_show_it(answer: Any) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    print_verdict(answer, console)
    assert "one-key" in console.export_text()
    assert verdict_from_json(json.loads(json.dumps(verdict_to_json(answer)))).arms == answer.arms
    page = report_html(answer)
    assert "one-key" in page
    assert "Any server that loads a prefix." in page
    assert "Other methods" in page


def test_it_is_tuned_written_and_read_again(tmp_path: Path) -> None:
    model = el.load("toy:ascending")
    tuned = el.tune(model, "ascending", method=OneKey(), learning_rate=0.1, steps=3, test_items=16, out=tmp_path)
    again = read_adapter(model, tmp_path, [OneKey()])
    ids = model.ids([3, 1, 2, 5])
    with torch.no_grad(), el.use(model, tuned.adaptation):
        wanted = model(ids).logits
    with torch.no_grad(), el.use(model, again):
        assert torch.equal(model(ids).logits, wanted)
    with pytest.raises(InputError, match="an adapter of type one-key"):
        read_adapter(model, tmp_path)


def test_a_context_of_ones_own_comes_from_el_context() -> None:
    class Context(OneKey):
        rung = Rung(4.0, "prefix", "context")

    model = el.load("toy:ascending")
    assert el.context(Context(), model, seed=3).keys_per_layer() == 1
    with pytest.raises(UnknownNameError, match="option of one-key"):
        el.context(Context(), model, colour="red")
    with pytest.raises(UnknownNameError, match="context"):
        el.context(OneKey(), model)  # its rung says that it is no context


def test_it_keeps_the_contract() -> None:
    ran = check_method(OneKey(), el.load("toy:ascending", dtype="float64"))
    assert len(ran) == len(CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_each_check_sees_the_promise_broken(check: Any) -> None:
    """Every check fails for some method that breaks just its promise: a check that cannot fail is none."""
    broken = BROKEN[check.__name__]
    with pytest.raises(AssertionError):
        check(Subject(broken(), el.load("toy:ascending", dtype="float64")))


class Leaky(Scaled):
    """Breaks what its class attributes say."""

    def __init__(self, table: Tensor, fault: str) -> None:
        super().__init__(table)
        self.fault, self.calls = fault, 0

    def prefix(self, model: Any, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
        if self.fault == "touches the model":
            model.hf.some_attribute = 1
        if self.fault == "draws":
            torch.rand(1)
        whole = super().prefix(model, before, end)
        if self.fault == "no gradient":
            return PrefixKV(tuple(k.detach() for k in whole.keys), tuple(v.detach() for v in whole.values))
        if self.fault == "drifts":
            self.calls += 1
            return PrefixKV(whole.keys, tuple(self.calls * v for v in whole.values), positions=whole.positions)
        return whole

    def state(self) -> dict[str, Tensor]:
        return {} if self.fault == "forgets" else super().state()

    def load(self, state: dict[str, Tensor]) -> None:
        if self.fault not in ("forgets", "ignores its state"):
            super().load(state)

    def parameters(self) -> list[nn.Parameter]:
        extra = [nn.Parameter(torch.zeros(1))] if self.fault == "unreached" else []
        return [*super().parameters(), *extra]


def leaking(fault: str, **attributes: Any) -> Any:
    class Broken(OneKey):
        def build(self, model: Any, size: int = 1, seed: int = 0, **options: Any) -> Leaky:
            drawn = int(torch.seed() % 2**31) if fault == "unseeded" else seed
            return Leaky(super().build(model, size, drawn).table, fault)

    for name, value in attributes.items():
        setattr(Broken, name, value)
    return Broken


class Hooking(OneKey):
    """Changes logits by a hook that depends on the batch, the mask or the mode, and ignores the dial."""

    def __init__(self, how: str) -> None:
        self.how = how

    def build(self, model: Any, size: int = 1, seed: int = 0, **options: Any) -> Scaled:
        how, base = self.how, super().build(model, size, seed)

        class Hooked(Scaled):
            def weights(self, inner: Any) -> Any:
                return hooked(inner, how)

        return Hooked(base.table.detach())


def hooked(model: Any, how: str) -> Any:
    from contextlib import contextmanager

    def after(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        logits = output.logits
        if how == "batch":
            logits = logits + logits.mean(dim=0, keepdim=True)
        elif how == "padding" and kwargs.get("attention_mask") is not None:
            logits = logits + 0.1 * kwargs["attention_mask"].double().mean() * torch.arange(logits.shape[-1])
        elif how == "cache" and kwargs.get("past_key_values") is not None:
            logits = logits.flip(-1)
        elif how == "length":
            logits = torch.cat([logits[:, :1], logits], dim=1)
        elif how == "training" and module.training:
            logits = 2.0 * logits
        output.logits = logits
        return output

    @contextmanager
    def inside() -> Any:
        handle = model.hf.register_forward_hook(after, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    return inside()


class Staying(OneKey):
    """Leaves its hook in the model when something goes wrong inside."""

    def build(self, model: Any, size: int = 1, seed: int = 0, **options: Any) -> Scaled:
        base = super().build(model, size, seed)

        class Left(Scaled):
            def weights(self, inner: Any) -> Any:
                from contextlib import contextmanager

                @contextmanager
                def inside() -> Any:
                    inner.hf.left_behind = True
                    yield
                    del inner.hf.left_behind

                return inside()

        return Left(base.table.detach())


class Shifting(OneKey):
    """Changes the model for good while it is built, so that no dial brings the base model back."""

    def build(self, model: Any, size: int = 1, seed: int = 0, **options: Any) -> Scaled:
        model.hf.lm_head.register_forward_hook(lambda module, args, logits: logits + 1.0)
        return super().build(model, size, seed)


BROKEN: dict[str, Any] = {
    "check_it_says_what_it_is": leaking("", summary=""),
    "check_the_model_is_left_as_it_came": leaking("touches the model"),
    "check_an_exception_inside_leaves_the_model_as_it_came": Staying,
    "check_the_global_generator_is_left_alone": leaking("draws"),
    "check_gradients_flow_only_where_they_belong": leaking("no gradient"),
    "check_the_closed_form_counts_what_is_trained": leaking("", numbers=lambda self, model, size=1: 7),
    "check_the_budget_is_used_up_and_never_passed": leaking("", has_size=True),
    "check_other_starts_are_plain_options_within_the_budget": leaking("", starts=lambda self, model: ({"init": [1]},)),
    "check_a_folder_holds_it_whole": leaking("ignores its state"),
    "check_state_and_load_round_trip": leaking("forgets"),
    "check_what_is_kept_gives_it_back": leaking("ignores its state"),
    "check_the_same_seed_gives_the_same_bytes": leaking("unseeded"),
    "check_left_padding_changes_nothing": lambda: Hooking("padding"),
    "check_batch_size_changes_nothing": lambda: Hooking("batch"),
    "check_generate_equals_teacher_forcing": lambda: Hooking("cache"),
    "check_logits_are_as_long_as_the_labels": lambda: Hooking("length"),
    "check_strength_zero_is_the_base_model": Shifting,
    "check_gradient_checkpointing_gives_the_same_gradients": lambda: Hooking("training"),
}


def test_the_catalog_is_what_a_race_tries_by_default() -> None:
    assert len({method.name for method in METHODS}) == len(METHODS)
    assert set(ONLY_TRAINED) < set(CHECKS)
