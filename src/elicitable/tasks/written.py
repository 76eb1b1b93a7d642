"""Read lists that stand as texts, which is how CSV keeps them: as JSON, or as Python, numpy and pandas write them."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

from elicitable.tasks.doubled import object_of

LONGEST: Final = 1 << 20  # characters of a list as Python writes it: to read it takes many times their room
_LOOKS_WRITTEN: Final = re.compile(r"""\s*(\[\s*["'{]|\{\s*["'])""")
_NO_COMMA: Final = re.compile(r"""["'}\]]\s+["'{\[]""")
_BLANK: Final = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
_NO_LIST: Final = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError)


def parsed(text: str) -> list[Any] | None:
    """Return the list that a text holds; None where it holds none.

    An object of JSON in which a key stands twice is marked as such, and one of Python makes it no list.

    >>> from elicitable.tasks.doubled import doubled_in
    >>> parsed('["a", null]'), parsed("['a', None]"), parsed("['a' 'b']"), parsed("[a]")
    (['a', None], ['a', None], ['a', 'b'], None)
    >>> doubled_in(parsed('[{"a": 1, "a": 2}]')), parsed("[{'a': 1, 'a': None}]")
    ("the key 'a' stands in it twice", None)
    """
    if not text.lstrip().startswith("["):
        return None
    found = _of_json(text)
    return _of_python(text.strip()) if found is None else found


def looks_written(text: str) -> bool:
    """Say whether a text begins as a list of texts or objects, or an object, does where it is written out.

    >>> looks_written("['a']"), looks_written('{"a": 1}'), looks_written("[1] Smith"), looks_written("{text}")
    (True, True, False, False)
    """
    return _LOOKS_WRITTEN.match(text) is not None


def are_lists_of_python(texts: Iterable[str]) -> bool:
    """Say whether all texts are lists of texts, and one of them at least is as Python alone writes it.

    Lists that all are JSON may well be what is to be written.

    >>> are_lists_of_python(["['a', 'b']", "[]"]), are_lists_of_python(['["a", "b"]']), are_lists_of_python(["a"])
    (True, False, False)
    """
    is_of_python = False
    for text in texts:
        found = parsed(text)
        if found is None or not all(isinstance(one, str) for one in found):
            return False
        is_of_python = is_of_python or _of_json(text) is None
    return is_of_python


def _of_json(text: str) -> list[Any] | None:
    try:
        found = json.loads(text, object_pairs_hook=object_of)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _of_python(text: str) -> list[Any] | None:
    if len(text) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a text's backslashes
            tree = ast.parse("".join(_with_commas(text)) if _NO_COMMA.search(text) else text, mode="eval")
            found = ast.literal_eval(tree)
    except _NO_LIST:
        return None
    return found if isinstance(found, list) and not any(map(_is_doubled, ast.walk(tree))) else None


def _is_doubled(node: ast.AST) -> bool:
    keys = [key.value for key in node.keys if isinstance(key, ast.Constant)] if isinstance(node, ast.Dict) else []
    return len(set(keys)) < len(keys)


def _with_commas(text: str) -> Iterator[str]:
    """Yield what Python reads in a text, with commas where an array of numpy's has but blanks between its values."""
    found = [one for one in tokenize.generate_tokens(io.StringIO(text).readline) if one.type not in _BLANK]
    for before, one in pairwise([found[0], *found]):
        is_next = one is not before and (one.type == tokenize.STRING or one.string in ("{", "["))
        if is_next and (before.type == tokenize.STRING or before.string in ("}", "]")):
            yield ","
        yield f"{one.string} "
