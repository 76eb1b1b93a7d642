"""What becomes of a good input: strategies that alter bytes, JSON and tensors the way a fault or an enemy would."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

DEEP = "[" * 100_000
HOSTILE_TEXTS = ("", "\x1b[31m\x07", "[/x]", "\u202eabc", "\u200b", "{", "{{text}}", "../../x", "a" * 5_000, "\ud800")
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 10**7, 10**30, -(10**30), 0.5, 1e308, float("inf"), float("nan"), "x", "7", [], {}, [[]],
    [None], {"a": {}}, *HOSTILE_TEXTS,
)  # fmt: skip
_MAGIC = (b"\x00", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x00" * 8, b"\x01", b"\x80", b"{", b'"', b"\n", b",",
          b"\x1b[2J", b"\xe2\x80\xae", b"NaN", b"1e999", b"9" * 400, b"[" * 500)  # fmt: skip


@st.composite
def altered_bytes(draw: Any, corpus: tuple[bytes, ...]) -> bytes:
    """One of ``corpus`` with one to four things done to it."""
    data = draw(st.sampled_from(corpus))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        what = draw(st.sampled_from(("flip", "flip", "put", "insert", "cut", "drop", "twice", "splice")))
        if what == "flip" and data:
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        elif what in ("put", "insert"):
            magic = draw(st.sampled_from(_MAGIC))
            data = data[:at] + magic + data[at + (len(magic) if what == "put" else 0) :]
        elif what == "cut":
            data = data[:at]
        elif what == "drop":
            data = data[:at] + data[at + draw(st.integers(1, 64)) :]
        elif what == "twice":
            data = data[:at] + data[max(0, at - draw(st.integers(1, 64))) :]
        else:
            other = draw(st.sampled_from(corpus))
            data = data[:at] + other[draw(st.integers(0, max(0, len(other) - 1))) :]
    return data


@st.composite
def altered_json(draw: Any, corpus: tuple[Any, ...]) -> Any:
    """One of ``corpus`` with up to three of its values hostile, gone, or under another name."""
    whole = {"": copy.deepcopy(draw(st.sampled_from(corpus)))}
    for _ in range(draw(st.integers(0, 3))):
        holder: Any = whole
        key: Any = ""
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 5)):
            holder = holder[key]
            keys = sorted(holder) if isinstance(holder, dict) else range(len(holder))
            key = draw(st.sampled_from(list(keys)))
        what = draw(st.sampled_from(("value", "value", "value", "gone", "name", "twice")))
        if what == "value" or holder is whole:
            holder[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
        elif what == "gone":
            del holder[key]
        elif what == "name" and isinstance(holder, dict):
            holder[draw(st.sampled_from(HOSTILE_TEXTS))] = holder.pop(key)
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        if not isinstance(whole[""], dict | list):
            break
    return whole[""]


@st.composite
def altered_json_text(draw: Any, corpus: tuple[Any, ...]) -> bytes:
    """The same as a text; sometimes its bytes are altered as well, or it is nested without end."""
    text = json.dumps(draw(altered_json(corpus))).encode("utf-8", "surrogatepass")
    how = draw(st.integers(0, 9))
    if how == 0:
        return draw(altered_bytes((text,)))  # type: ignore[no-any-return]
    return DEEP.encode() if how == 1 and draw(st.integers(0, 9)) == 0 else text


@st.composite
def altered_tensors(draw: Any, good: dict[str, Any]) -> dict[str, Any]:
    """``good`` with up to two tensors that are gone, renamed, of another shape or type, or hold no numbers."""
    import torch

    tensors = dict(good)
    for _ in range(draw(st.integers(0, 2))):
        if not tensors:
            return tensors
        name = draw(st.sampled_from(sorted(tensors)))
        what = draw(st.sampled_from(("gone", "name", "shape", "type", "nan", "empty", "scalar", "more")))
        tensor = tensors.pop(name)
        if what == "name":
            tensors[
                draw(st.sampled_from(("x", "layers.9.kept", "layers.x.keys", "prompt_embeddings", name + ".y")))
            ] = tensor
        elif what == "shape":
            tensors[name] = torch.zeros(draw(st.lists(st.integers(0, 4), max_size=4)))
        elif what == "type":
            tensors[name] = tensor.to(draw(st.sampled_from((torch.bool, torch.int64, torch.float16, torch.bfloat16))))
        elif what == "nan":
            tensors[name] = torch.full(tensor.shape, float("nan"))
        elif what == "empty":
            tensors[name] = torch.zeros(0, *tensor.shape[1:])
        elif what == "scalar":
            tensors[name] = torch.tensor(draw(st.sampled_from((0, -1, 10**9))))
        elif what == "more":
            tensors |= {name: tensor, "more": torch.zeros(1)}
    return tensors
