"""Read what comes from outside: JSON and tensors within bounds that the file itself sets, texts that cannot act.

A file may claim anything. What it claims is compared with what it can hold before memory is asked for, and a text that
is shown to a person shows its control characters instead of obeying them.
"""

from __future__ import annotations

import json
import math
import operator
import os
import shlex
import unicodedata
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from elicitable.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES = 1 << 26  # of one JSON file: 64 MiB
DEEPEST = 64  # lists and objects inside one another
ALIGNMENT = 64  # bytes: where PyTorch begins a tensor of its own
_LONGEST_HEADER = 1 << 26  # of a safetensors file
_KEPT = "\n\t"
_NOTHING = ()
_IDS = frozenset((int, str))
_HIDDEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")  # control, format (bidi, zero width), private, surrogates, line ends


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Read one JSON file: UTF-8, at most ``most_bytes`` long and :data:`DEEPEST` deep, with finite numbers alone.

    Raises:
        InputError: the file cannot be read or is none of that; the message names it.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} cannot be read (it is no file)")
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    if len(data) > most_bytes:
        raise InputError(f"{path} cannot be read (it has more than {most_bytes:,} bytes)")
    try:
        return parse_json(data.decode("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error})") from error


def parse_json(text: str, deepest: int = DEEPEST, is_finite: bool = True) -> Any:
    """Parse a JSON text that is at most ``deepest`` deep and, unless told otherwise, holds finite numbers alone.

    Raises:
        InputError: it is none; the message says why, in one line.

    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    elicitable.errors.InputError: it is nested more than 64 deep
    >>> parse_json('{"r": NaN}')
    Traceback (most recent call last):
    elicitable.errors.InputError: NaN is no number of JSON
    >>> parse_json('{"r": 1e999}')
    Traceback (most recent call last):
    elicitable.errors.InputError: 1e999 is more than a number can be
    """
    try:
        given: dict[str, Any] = {"parse_constant": _no_constant, "parse_float": _finite} if is_finite else {}
        found = json.loads(text, **given)
    except RecursionError as error:
        raise InputError(f"it is nested more than {deepest} deep") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    _check_depth(found, deepest)
    return found


def _no_constant(name: str) -> NoReturn:
    raise InputError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InputError(f"{digits[:40]} is more than a number can be")
    return number


def _check_depth(found: Any, deepest: int) -> None:
    level = [found]
    for _ in range(deepest + 1):
        level = [
            below
            for one in level
            if isinstance(one, dict | list)
            for below in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise InputError(f"it is nested more than {deepest} deep")


def read_object(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Read one JSON object. Raises InputError as :func:`read_json` does, and where it is something else."""
    found = read_json(path, most_bytes)
    if not isinstance(found, dict):
        raise InputError(f"{path} cannot be read (it is not a JSON object)")
    return found


def shapes_of(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Read type and shape of every tensor in a safetensors file from its header; no tensor is loaded.

    The header is compared with the file: what it promises fits between its own end and that of the file. So whoever
    compares these shapes with those of a model has asked for no memory yet.

    Raises:
        InputError: the file is no whole safetensors file; the message names it.
    """
    try:
        if not path.is_file():
            raise InputError("there is no such file")
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise InputError(f"a header of {length:,} bytes in a file of {size:,}")
            header = parse_json(file.read(length).decode("utf-8"))
        tensors = {name: told for name, told in header.items() if name != "__metadata__"}
        return {name: _shape(name, told, size - 8 - length) for name, told in tensors.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}; it is damaged or cut off)") from error


def _shape(name: str, told: Mapping[str, Any], room: int) -> tuple[str, tuple[int, ...]]:
    begin, end = told["data_offsets"]
    shape = tuple(told["shape"])
    if not all(type(one) is int and one >= 0 for one in (begin, end, *shape)) or not begin <= end <= room:
        raise InputError(f"the tensor {name!r} is said to lie where the file has nothing")
    return str(told["dtype"]), shape


def read_tensors(path: Path, is_finite: bool = False) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file, after its header was compared with the file (:func:`shapes_of`).

    Args:
        path: the file.
        is_finite: refuse numbers that are not finite: what was trained holds none, and one of them spoils every answer.

    Raises:
        InputError: it cannot be read, or holds NaN or infinity; the message names the file and the tensor.
    """
    shapes_of(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = {name: aligned(tensor) for name, tensor in load_file(path).items()}
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path} cannot be read ({_first_line(error)})") from error
    if is_finite:
        check_finite(tensors, str(path))
    return tensors


def aligned(tensor: Tensor) -> Tensor:
    """Return ``tensor``, copied where it lies in the processor's memory as PyTorch's own tensors do not.

    A tensor that was mapped from a file begins wherever the file has it. Some kernels (MKL's on AVX2) add up in another
    order then, so that the same numbers would give other last digits from a file than from memory.
    """
    return tensor.clone() if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT else tensor


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError, by the tensor's name, where a number is NaN or infinite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise InputError(f"{where}: {name} holds numbers that are not finite (NaN or infinity).")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def visible(text: object) -> str:
    r"""Write ``text`` so that it says what it holds: what a terminal or a page would obey is written as an escape.

    Control characters, zero-width and right-to-left marks, line separators, private and lone surrogate characters
    become ``\uXXXX``; line feeds and tabs stay. A text without them is returned as it is.

    >>> print(visible("red \x1b[31m, left \u202e and \u200b none"))
    red \u001b[31m, left \u202e and \u200b none
    """
    shown = str(text)
    return shown.translate({ord(letter): _escape(letter) for letter in set(shown) if not _is_plain(letter)})


def _is_plain(letter: str) -> bool:
    return letter in _KEPT or letter.isprintable() or unicodedata.category(letter) not in _HIDDEN


def _escape(letter: str) -> str:
    """Return the escape that Python, JSON and JavaScript read alike: UTF-16 units in hexadecimal."""
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def typed(text: str) -> str:
    r"""Return what a person means by a text in which a line break or a tab is typed as two characters.

    >>> typed(r"\n\n")
    '\n\n'
    """
    return text.replace("\\n", "\n").replace("\\t", "\t")


def in_one_line(text: object) -> str:
    r"""Write ``text`` as :func:`visible` does, on one line.

    >>> in_one_line("two\nlines")
    'two lines'
    """
    return " ".join(visible(str(text).replace("\r\n", "\n").replace("\r", "\n")).split())


def command_line(*parts: str) -> str:
    r"""Return a command as it can be typed into a shell, on one line whatever is in it.

    What does not stay itself on one line (a line break, a control character) is written as bash and zsh read it.

    >>> print(command_line("elicitable", "verdict", "--task", "my rows.csv", "--template", "{text}\nLabel:"))
    elicitable verdict --task 'my rows.csv' --template $'{text}\nLabel:'
    """
    return " ".join(map(_quoted, parts))


def _quoted(part: str) -> str:
    if all(letter.isprintable() for letter in part):
        return shlex.quote(part)
    special = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return "$'" + "".join(special.get(letter) or _in_a_shell(letter) for letter in part) + "'"


def _in_a_shell(letter: str) -> str:
    if letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def make_plain(record: Any, but: str) -> None:
    """Turn lists in a frozen record into tuples, and whole numbers of other libraries in them into Python's.

    They break later, where they are looked up or written down. ``but`` one part stays as it is. What is plain already
    stays the same object, quickly.
    """
    for name in record.__slots__:
        kind = (given := getattr(record, name)).__class__
        if kind is list or (kind is tuple and given is not _NOTHING):
            plain = _plain(given)
            if plain is not given and name != but:
                object.__setattr__(record, name, plain)


def _plain(given: Any) -> Any:
    kind = given.__class__
    if kind is tuple and _IDS.issuperset(map(type, given)):
        return given
    if kind is not list and kind is not tuple:
        return int(given) if isinstance(given, Integral) else given
    plain = tuple(map(_plain, given))
    return given if kind is tuple and all(map(operator.is_, plain, given)) else plain


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether ``error`` means that there was no memory left: Python's own, or torch's on any device."""
    told = str(error)
    is_torchs = isinstance(error, RuntimeError) and (
        "out of memory" in told or "can't allocate memory" in told or "DefaultCPUAllocator" in told
    )
    return isinstance(error, MemoryError) or is_torchs
