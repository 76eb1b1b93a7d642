"""Texts that are typed, written by a model, or stand one a line in a file: options, scores, templates of a chat."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tests.faults.models import letters_model
from tests.faults.mutations import HOSTILE_TEXTS, altered_bytes, altered_json, altered_json_text
from tests.faults.reader import Reader

_LONG = ("9" * 5_000, "1" * 400, "٣", "½", "-0", "1_0", " 1 ", "0x1", "NaN", "inf", "1e999", "\x00")


def altered_texts(*good: str) -> st.SearchStrategy[str]:
    """One of ``good`` with its bytes altered, or a hostile text."""
    changed = altered_bytes(tuple(one.encode("utf-8", "surrogatepass") for one in good))
    return st.one_of(
        changed.map(lambda data: data.decode("utf-8", "replace")), st.sampled_from((*HOSTILE_TEXTS, *_LONG))
    )


def _typed(place: Path) -> st.SearchStrategy[Any]:
    options = {
        "seconds": altered_texts("90s", "30m", "1.5h", "7"),
        "pairs": altered_texts("0=no", "old=new"),
        "head": altered_texts("0,3", "1:2"),
        "tokens": altered_texts("3 1 2", "7, 0"),
        "score": altered_texts("numeric:0.01", "regex:#### ([0-9]+)", "macro-f1", "chrf", "regex:[0-9]+"),
        "model": altered_texts("toy:mixed", "smollm2", "nowhere/model.gguf", "folder/that/is/not"),
        "task": altered_texts("ascending", "movie-review", "nowhere.csv", "lm-eval:nothing", "a/b/c"),
        "method": altered_texts("lora", "peft:ia3", "peft:dora", "kv-prefix", "mine.py:Mine"),
        "experiment": altered_texts("elicit", "planted-truth"),
        "encoding": altered_texts("latin-1", "utf-16", "cp1252"),
    }
    return st.one_of(*(st.tuples(st.just(name), texts) for name, texts in options.items()))


def _read_typed(place: Path, given: tuple[str, str]) -> object:
    from elicitable import durations
    from elicitable.cli import inspect, options
    from elicitable.experiments.catalog import experiments_named
    from elicitable.methods.catalog import method_named
    from elicitable.models.load import load
    from elicitable.models.toys import build_toy  # noqa: F401
    from elicitable.scores.catalog import score_from
    from elicitable.tasks.catalog import task_from

    _index_once()
    name, text = given
    if name in ("model", "task") and (_is_of_the_network(text) or text == "smollm2"):  # which is large
        return None
    if name == "encoding":
        (place / "rows.csv").write_bytes("text,label\ncafé,y\nthé,n\n".encode("latin-1") * 20)
        return task_from(str(place / "rows.csv"), encoding=text)
    os.chdir(place)
    read: dict[str, Any] = {
        "seconds": durations.seconds_of,
        "pairs": lambda one: options._pairs("labels", [one]),
        "head": inspect._layer_and_head,
        "tokens": lambda one: inspect.context_of(_toy(), None, one),
        "score": lambda one: score_from(one, labels=("y", "n")),
        "model": load,
        "task": task_from,
        "method": method_named,
        "experiment": lambda one: experiments_named([one]),
    }
    return read[name](text)


@lru_cache(maxsize=1)
def _index_once() -> None:
    """Let lm-evaluation-harness look through its own tasks once and not for every name, which takes it seconds."""
    from lm_eval import tasks

    tasks.TaskManager = lru_cache(tasks.TaskManager)  # type: ignore[misc, assignment]


def _is_of_the_network(text: str) -> bool:
    return text.count("/") == 1 or text.startswith("hub:")


@lru_cache(maxsize=1)
def _toy() -> Any:
    from elicitable.models.load import load

    return load("toy:ascending")


# --- scores of what a model wrote -----------------------------------------------------------------------------

_DEEPER = 1_500  # than a parser that calls itself can go
_ANSWERS = ('{"a": 1}', "it is 3.5", "#### 42", "no way", "[1, 2.0, true]", "-7,000.25 %", "1e5", "½ of ٣")


def _answers(place: Path) -> st.SearchStrategy[Any]:
    values = altered_json((json.loads(_ANSWERS[0]), [1, 2.0, True, {"b": None}])).map(json.dumps)
    texts = st.one_of(altered_texts(*_ANSWERS), values, st.just("[" * _DEEPER), st.just('{"a":' * _DEEPER))
    return st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


def _score(place: Path, pairs: list[tuple[str, str]]) -> object:
    from elicitable.errors import InputError
    from elicitable.scores.catalog import catalog, score_from

    targets, answers = [target for target, _ in pairs], [answer for _, answer in pairs]
    argument = {"regex": ":#### ([0-9]+)|[0-9]+", "numeric": ":0.01"}
    found = []
    for listed in catalog():
        labels = tuple(dict.fromkeys([*targets, "y", "n"])) if listed.kind == "classification" else None
        scorer = score_from(listed.name + argument.get(listed.name, ""), labels)
        try:
            scorer.check(targets)
        except InputError:
            continue
        value = scorer.point(targets, answers)
        assert -1.0 <= value <= 1.0, f"{listed.name} scores {value}"
        found.append(value)
    return found


# --- texts in files -------------------------------------------------------------------------------------------

_MAP = {"ab": "ba", "aa": "aa", "ba": "ab", "bb": "bb"}


def _maps(place: Path) -> st.SearchStrategy[Any]:
    return st.one_of(altered_json_text((_MAP,)), st.just(b'{"a": "x", "a": "y"}'), st.just(b'{"a":' * 5_000))


def _read_map(place: Path, data: bytes) -> object:
    from elicitable.cli.construct.text_map import read

    (place / "map.json").write_bytes(data)
    found = read(place / "map.json")
    return found.encode(found.alphabet(), "of the map", 2, found.longest, "")


def _read_lines(place: Path, data: bytes) -> object:
    from elicitable.cli.compile import _lines
    from elicitable.models.layout import Layout
    from elicitable.models.rows import rows_of
    from elicitable.values import Item

    (place / "texts.txt").write_bytes(data)
    items = [Item(line, "a") for line in _lines(place / "texts.txt")]
    return rows_of(letters_model(), items, Layout())


def _read_card(place: Path, data: bytes) -> object:
    from elicitable.deploy.card import license_of

    (place / "README.md").write_bytes(data)
    return license_of(str(place))


_CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def _chat_templates(place: Path) -> st.SearchStrategy[Any]:
    return altered_texts(_CHAT, "{{ messages[0]['content'] }}", "{% for m in messages %}{{ m }}{% endfor %}")


def _read_chat_template(place: Path, text: str) -> object:
    """Lay out a text and a conversation as a model with this template reads them."""
    import copy

    from elicitable.models.layout import alternatives, layout_for
    from elicitable.models.rows import rows_of
    from elicitable.values import Item, Message

    model = copy.copy(letters_model())
    model.tokenizer = copy.copy(model.tokenizer)
    model.tokenizer.chat_template = text
    layout = layout_for(model, "on", "be kind", None, "left", ())
    talk = (Message("user", "hi"), Message("assistant", "yes?"), Message("user", "ab"))
    return [rows_of(model, [Item("ab", "c"), Item(talk, "c")], one) for one in (layout, *alternatives(model, layout))]


TEXTS = (
    Reader("what is typed", _typed, _read_typed),
    Reader("answers that are scored", _answers, _score),
    Reader("map of texts", _maps, _read_map),
    Reader("texts of a line", lambda place: altered_bytes((b"ab cd\n\nef gh\n", "café\n".encode())), _read_lines),
    Reader("card of a model", lambda place: altered_bytes((b"---\nlicense: mit\n---\n# a\n",)), _read_card),
    Reader("chat template", _chat_templates, _read_chat_template),
)
