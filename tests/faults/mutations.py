"""What becomes of a good input: strategies that alter bytes, JSON and tensors the way a fault or an enemy would."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
DEEP = "[" * 100_000
HOSTILE_TEXTS = ("", "\x1b[31m\x07", "[/x]", "\u202eabc", "\u200b", "{", "{{text}}", "../../x", "a" * 5_000, "\ud800")
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 10**7, 10**30, -(10**30), 0.5, 1e308, float("inf"), float("nan"), "x", "7", [], {}, [[]],
    [None], {"a": {}}, *HOSTILE_TEXTS,
)  # fmt: skip
_MAGIC = (b"\x00", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x00" * 8, b"\x01", b"\x80", b"{", b'"', b"\n", b",",
          b"\x1b[2J", b"\xe2\x80\xae", b"NaN", b"1e999", b"9" * 400, b"[" * 500)  # fmt: skip


def _drawn(make: Callable[[Random], T]) -> st.SearchStrategy[T]:
    """What ``make`` makes of random choices, of which hypothesis draws the seed: drawing each takes milliseconds."""
    return st.integers(0, (1 << 63) - 1).map(lambda seed: make(Random(seed)))


def altered_bytes(corpus: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """One of ``corpus`` with one to four things done to it."""
    return _drawn(lambda random: _bytes(random, corpus))


def _bytes(random: Random, corpus: tuple[bytes, ...]) -> bytes:
    data = random.choice(corpus)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, max(0, len(data) - 1))
        what = random.choice(("flip", "flip", "put", "insert", "cut", "drop", "twice", "splice"))
        if what == "flip" and data:
            data = data[:at] + bytes([data[at] ^ 1 << random.randint(0, 7)]) + data[at + 1 :]
        elif what in ("put", "insert"):
            magic = random.choice(_MAGIC)
            data = data[:at] + magic + data[at + (len(magic) if what == "put" else 0) :]
        elif what == "cut":
            data = data[:at]
        elif what == "drop":
            data = data[:at] + data[at + random.randint(1, 64) :]
        elif what == "twice":
            data = data[:at] + data[max(0, at - random.randint(1, 64)) :]
        else:
            other = random.choice(corpus)
            data = data[:at] + other[random.randint(0, max(0, len(other) - 1)) :]
    return data


def altered_json(corpus: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """One of ``corpus`` with up to three of its values hostile, gone, or under another name."""
    texts = tuple(map(json.dumps, corpus))
    return _drawn(lambda random: _json(random, texts))


def _json(random: Random, texts: tuple[str, ...]) -> Any:
    whole = {"": json.loads(random.choice(texts))}
    for _ in range(random.randint(0, 3)):
        holder: Any = whole
        key: Any = ""
        while isinstance(holder[key], dict | list) and holder[key] and random.randint(0, 5):
            holder = holder[key]
            key = random.choice(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
        what = random.choice(("value", "value", "value", "gone", "name", "twice"))
        if what == "value" or holder is whole:
            holder[key] = copy.deepcopy(random.choice(HOSTILE))
        elif what == "gone":
            del holder[key]
        elif what == "name" and isinstance(holder, dict):
            holder[random.choice(HOSTILE_TEXTS)] = holder.pop(key)
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        if not isinstance(whole[""], dict | list):
            break
    return whole[""]


def altered_json_text(corpus: tuple[Any, ...]) -> st.SearchStrategy[bytes]:
    """The same as a text; sometimes its bytes are altered as well, or it is nested without end."""
    texts = tuple(map(json.dumps, corpus))
    return _drawn(lambda random: _json_text(random, texts))


def _json_text(random: Random, texts: tuple[str, ...]) -> bytes:
    text = json.dumps(_json(random, texts)).encode("utf-8", "surrogatepass")
    how = random.randint(0, 99)
    if how < 10:
        return _bytes(random, (text,))
    return DEEP.encode() if how == 10 else text


def altered_tensors(good: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """``good`` with up to two tensors that are gone, renamed, of another shape or type, or hold no numbers."""
    return _drawn(lambda random: _tensors(random, good))


def _tensors(random: Random, good: dict[str, Any]) -> dict[str, Any]:
    import torch

    tensors = dict(good)
    for _ in range(random.randint(0, 2)):
        if not tensors:
            return tensors
        name = random.choice(sorted(tensors))
        what = random.choice(("gone", "name", "shape", "type", "nan", "empty", "scalar", "more"))
        tensor = tensors.pop(name)
        if what == "name":
            tensors[random.choice(("x", "layers.9.kept", "layers.x.keys", "prompt_embeddings", name + ".y"))] = tensor
        elif what == "shape":
            tensors[name] = torch.zeros([random.randint(0, 4) for _ in range(random.randint(0, 4))])
        elif what == "type":
            tensors[name] = tensor.to(random.choice((torch.bool, torch.int64, torch.float16, torch.bfloat16)))
        elif what == "nan":
            tensors[name] = torch.full(tensor.shape, float("nan"))
        elif what == "empty":
            tensors[name] = torch.zeros(0, *tensor.shape[1:])
        elif what == "scalar":
            tensors[name] = torch.tensor(random.choice((0, -1, 10**9)))
        elif what == "more":
            tensors |= {name: tensor, "more": torch.zeros(1)}
    return tensors
