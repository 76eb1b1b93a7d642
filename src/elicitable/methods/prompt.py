"""Prompting: discrete tokens before the content, given, chosen among candidates, or found by search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.instructions import END, PROPOSED_PASSES, bank, edits, of_answers, proposals
from elicitable.methods.search import Found, Offer, Search
from elicitable.methods.swaps import swapped_ids, swapped_texts
from elicitable.models.capture import capture_tokens
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.rows import common_context, context_ids
from elicitable.rng import generator
from elicitable.values import Budget, Message

if TYPE_CHECKING:
    import numpy as np

    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item, PrefixKV

SEARCH_VOCAB = 64  # every sequence of up to `size` tokens is tried only in vocabularies up to this size
DRAWN = 32  # sequences to start from in a larger vocabulary without a tokenizer
LONGEST = 8  # tokens of a sequence that a search without a tokenizer goes to
ROUNDS, A_ROUND = 4, 16  # of edits of the best: how often, and how many at once
BEST = 3  # texts that are tried in the other layouts


THINK = 'Think step by step first. Then write "Answer:" and the answer alone, and stop.\n\n'
TAIL, MARKER = "\nLet us think step by step.", "Answer:"


class TokenContext(Adaptation):
    """Hard tokens as a context; nothing is trained and only the ids are stored.

    With a ``layout`` they are the first tokens of every text in that layout. A tokenizer may join the last characters
    before an item with its own first ones; :meth:`fit` then leaves those tokens to the texts.
    """

    kind = "prompt"

    def __init__(self, ids: Tensor, layout: Layout | None = None, **setting: Any) -> None:
        super().__init__(**setting, **(layout.setting() if layout else {}))
        self.ids, self.layout, self.whole = ids, layout, ids.shape[1]

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV | None:
        """Keys and values of the tokens, run at batch 1 through the weights as they are right now."""
        return capture_tokens(model, self.ids.to(model.device), before, end) if self.ids.numel() else None

    @property
    def asks_otherwise(self) -> bool:
        """Whether something stands behind every prompt."""
        return "tail" in self.setting

    def asked(self, model: Model, items: Sequence[Item]) -> Sequence[Item]:
        """Put the tail behind every prompt, where there is one; only what stood there before may be cut."""
        tail = str(self.setting.get("tail", ""))
        return [_with_tail(item, tail) for item in items] if tail else items

    def held(self) -> tuple[int, ...]:
        """The ids, where they are the beginning of a text."""
        return tuple(self.ids.flatten().tolist()) if self.layout else ()

    def embeddings(self, model: Model) -> Tensor | None:
        """The tokens' own embeddings."""
        return model.embed(self.ids.to(model.device))[0] if self.ids.numel() else None

    def fit(self, model: Model, items: Sequence[Item]) -> None:
        """Keep those first tokens that are the same whichever of ``items`` follows."""
        if self.layout is not None:
            self.ids = model.ids(common_context(model, items, self.layout, self.held()))

    def state(self) -> dict[str, Tensor]:
        """The token ids."""
        return {"token_ids": self.ids.clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over the token ids. Raises InputError where the tensors are not one row of ids."""
        ids = state.get("token_ids")
        if len(state) != 1 or ids is None or ids.dtype != torch.long or ids.ndim != 2 or len(ids) != 1:
            found = {name: (str(tensor.dtype), tuple(tensor.shape)) for name, tensor in state.items()}
            raise InputError(f"{self.kind}: expected token_ids, one row of whole numbers, and found are {found}.")
        self.ids = ids.clone()

    def keys_per_layer(self) -> int:
        """One key a token."""
        return self.ids.shape[1]

    def bytes_stored(self) -> int:
        """Four bytes a token id."""
        return 4 * self.ids.numel()

    def budget(self) -> Budget:
        """The three budgets; tokens that are left to the texts are paid in every request all the same."""
        return replace(super().budget(), keys_per_layer=max(self.whole, self.keys_per_layer()))


class Prompt(Method):
    """The best of the prompts given, a bank of instructions, what a model proposes, and edits of these."""

    name = "prompt"
    rung = rungs.PROMPT
    summary = "a text or token sequence before the content; the best of several on validation"
    deployment = "Any server. It is text; its keys are paid in every request unless the server caches them."
    turn, is_seeded = 10, False
    options, searched = ("text", "token_ids", "layout", "tail", "marker"), ("prompts", "proposer")

    def build(
        self,
        model: Model,
        size: int = 0,
        seed: int = 0,
        text: str | None = None,
        token_ids: Sequence[int] | None = None,
        layout: Layout | None = None,
        tail: str | None = None,
        marker: str | None = None,
        **options: Any,
    ) -> TokenContext:
        """The prompt ``text`` (the head of ``layout``), or ``token_ids`` as they are.

        A ``tail`` stands behind every item's own prompt. With a ``marker`` the model thinks first: it writes freely,
        and what stands behind the last marker is its answer.

        Raises:
            InputError: neither or both were given, the prompt is empty, or ids are outside the vocabulary.
        """
        if text is not None and token_ids is None:
            own = replace(layout or PLAIN, head=text)
            model.ids(text)  # a model without a tokenizer refuses the text
            own = replace(own, stops=(), end=None) if marker else own  # thinking may go over several lines
            context = TokenContext(model.ids(context_ids(model, own)), own, text=text, tail=tail, marker=marker)
        elif token_ids is not None and text is None:
            ids = model.ids(token_ids)
            context = TokenContext(ids, token_ids=ids.flatten().tolist())
        else:
            raise InputError("a prompt needs either text= or token_ids=.")
        if context.ids.numel() == 0 or text == "":
            raise InputError("the prompt is empty: give at least one token.")
        return context

    def from_setting(self, model: Model, setting: Mapping[str, Any], layout: Layout) -> TokenContext:
        """Build the prompt of a record's setting again."""
        given = {name: setting[name] for name in ("text", "token_ids", "tail", "marker") if name in setting}
        return self.build(model, layout=layout_of(setting, layout), **given)

    def search(
        self,
        model: Model,
        task: Task,
        seed: int,
        size: int = 2,
        prompts: Sequence[str] = (),
        proposer: str | None = None,
        layouts: Sequence[Layout] = (),
        **options: Any,
    ) -> Search:
        """Look for a prompt: those given, a bank, a model's own proposals, then edits and token swaps of the best.

        A given text that ends without white space is tried as it is and with an empty line behind it.

        Without a tokenizer: every sequence of up to ``size`` tokens of a small vocabulary, then longer ones and swaps.
        """
        if model.tokenizer is None:
            yield from self._ids_search(model, seed, size)
        else:
            yield from self._text_search(model, task, seed, prompts, proposer, readable(task, layouts))

    def _text_search(
        self,
        model: Model,
        task: Task,
        seed: int,
        prompts: Sequence[str],
        proposer: str | None,
        layouts: Sequence[Layout],
    ) -> Search:
        texts = Texts(self, model)
        if prompts:
            apart = [text if text[-1:].isspace() else text + END for text in prompts]
            yield texts.offer([*prompts, *apart], layouts, "given", is_bound=False)
        found = yield texts.offer(bank(task), layouts[:1], "bank")
        if not found.best:
            found = yield texts.offer(of_answers(), layouts[:1], "bank, without labels")
        if len(layouts) > 1:
            found = yield texts.offer(_texts(found)[:BEST], layouts[1:], "bank, laid out otherwise")
        best = _best_layout(found, layouts)
        if task.labels() is None:
            found = yield texts.offer([THINK], [best], "thinking first", tail=TAIL, marker=MARKER)
        is_paid = found.left > 4 * PROPOSED_PASSES
        said, passes = proposals(model, proposer, task, seed, found.seconds / 2) if is_paid else ([], 0)
        found = yield replace(texts.offer(said, [best], f"proposed by {proposer or model.name}"), passes=passes)
        if not found.best:
            raise InputError(
                f"no instruction has room: each takes more than {room_of(model)} tokens, half of the positions of "
                f"{model.name}, and as many are left to the items; give a shorter one (--prompt), or fewer or shorter "
                "labels."
            )
        for nth in range(ROUNDS):
            found = yield texts.edits(found, generator(seed, "edits", nth), by_slopes=nth % 2 == 0)

    def _ids_search(self, model: Model, seed: int, size: int) -> Search:
        tried = list(_sequences(model.anatomy.vocab, size, seed))
        found = yield Offer([self.build(model, token_ids=ids) for ids in tried], "short sequences")
        known = set(tried)
        for nth in range(ROUNDS):
            if not found.best:
                return
            best, rng = found.best[0].adaptation, generator(seed, "swaps", nth)
            ids = best.state()["token_ids"].flatten().tolist()
            more = rng.integers(0, model.anatomy.vocab, (A_ROUND, max(1, size + 1 - len(ids)))).tolist()
            longer = [[*ids, *tokens] for tokens in more]
            new = [*swapped_ids(ids, found.slopes(best), rng, A_ROUND), *(longer if len(ids) < LONGEST else [])]
            new = [list(one) for one in dict.fromkeys(map(tuple, new)) if one not in known]
            known |= set(map(tuple, new))
            found = yield Offer([self.build(model, token_ids=one) for one in new], "swaps and edits")


class Texts:
    """Makes candidates of texts, each text once in each layout, and edits of the best one."""

    def __init__(self, method: Prompt, model: Model) -> None:
        self.method, self.model = method, model
        self.known: set[tuple[Any, ...]] = set()

    def offer(
        self, texts: Iterable[str], layouts: Sequence[Layout], origin: str, is_bound: bool = True, **more: Any
    ) -> Offer:
        """Every new text in every one of ``layouts``; with ``is_bound`` without those that leave too little room.

        ``more`` is what else they are built with.
        """
        pairs = dict.fromkeys((text, layout) for text, layout in product(texts, layouts) if text.strip())
        new = [pair for pair in pairs if (*pair, *more.values()) not in self.known]
        self.known |= {(*pair, *more.values()) for pair in new}
        built = [self.method.build(self.model, text=text, layout=layout, **more) for text, layout in new]
        room = room_of(self.model)
        return Offer([one for one in built if not is_bound or one.keys_per_layer() <= room], origin)

    def edits(self, found: Found, rng: np.random.Generator, by_slopes: bool) -> Offer:
        """Variants of the best text: single tokens swapped where the slopes say so, or words moved about."""
        best = found.best[0].adaptation
        if best.layout is None or found.left < A_ROUND:
            return Offer([], "edits")
        text, layout = best.layout.head, replace(best.layout, head="")
        more: dict[str, Any] = {name: best.setting[name] for name in ("tail", "marker") if name in best.setting}
        new: list[str] = []
        if by_slopes and not more:  # slopes are those of an answer without thinking
            new = swapped_texts(self.model, best.layout, found.slopes(best), rng, A_ROUND)
        return self.offer(new or edits(text, rng, A_ROUND), [layout], "token swaps" if new else "edits", **more)


def _with_tail(item: Item, tail: str) -> Item:
    if isinstance(item.prompt, str):
        return replace(item, prompt=item.prompt + tail, spans=item.spans or ((0, len(item.prompt)),))
    *before, last = item.prompt
    if not isinstance(last, Message):
        raise InputError("a tail is a text, and the items of this task are token ids.")
    return replace(item, prompt=(*before, replace(last, content=last.content + tail)))  # type: ignore[arg-type]


def _texts(found: Found) -> list[str]:
    """The heads of the candidates so far, the best first."""
    heads = [one.adaptation.layout.head for one in found.best if one.adaptation.layout is not None]
    return list(dict.fromkeys(heads))


def _best_layout(found: Found, layouts: Sequence[Layout]) -> Layout:
    best = found.best[0].adaptation.layout if found.best else None
    return layouts[0] if best is None else replace(best, head="")


def _sequences(vocab: int, size: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Every sequence of up to ``size`` tokens of a small vocabulary; of a larger one some of that length."""
    if vocab <= SEARCH_VOCAB:
        for length in range(1, size + 1):
            yield from product(range(vocab), repeat=length)
        return
    drawn = generator(seed, "sequences").integers(0, vocab, (DRAWN, size))
    yield from dict.fromkeys(tuple(map(int, row)) for row in drawn)


def layout_of(setting: Mapping[str, Any], layout: Layout) -> Layout:
    """``layout`` with the start, template and system message of a record's setting, which leaves out plain ones."""
    return replace(layout, **{name: setting.get(name, getattr(PLAIN, name)) for name in ("start", "chat", "system")})


def readable(task: Task, layouts: Sequence[Layout]) -> list[Layout]:
    """Those of ``layouts`` (the plain one where there is none) that the task's items can stand in."""
    item = task.held_out("validation", 1)[0]
    is_conversation = item.is_text and not isinstance(item.prompt, str)
    return [layout for layout in layouts or (PLAIN,) if layout.is_talk or not is_conversation]


def room_of(model: Model) -> int:
    """Positions that a context may take so that as many are left to the content."""
    return (model.anatomy.trained_positions or 2048) // 2
