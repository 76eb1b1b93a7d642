"""The map that ``elicitable construct THEOREM --map`` reads: a JSON object from input text to answer text."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from elicitable.constructions.alphabet import Alphabet
from elicitable.errors import InputError
from elicitable.report.notation import plural


@dataclass(frozen=True)
class TextMap:
    """At least one input text with its answer text, and the file they stand in."""

    path: Path
    answers: dict[str, str]

    @property
    def longest(self) -> int:
        """Characters of the longest answer."""
        return max(map(len, self.answers.values()))

    def alphabet(self) -> Alphabet:
        """The characters of inputs and answers, by code point."""
        return Alphabet("".join(sorted(set("".join(self.answers) + "".join(self.answers.values())))))

    def only_answered(self) -> str:
        """The characters of the answers that no input has, by code point."""
        return "".join(sorted(set("".join(self.answers.values())) - set("".join(self.answers))))

    def encode(self, alphabet: Alphabet, origin: str, n_input: int, n_answer: int, advice: str) -> dict[object, object]:
        """The map in symbols; answers shorter than n_Y are filled up with symbol 0.

        Raises InputError unless it is total over ``alphabet`` (``origin`` says whose characters those are), with
        inputs of n_X characters and answers of at most n_Y; ``advice`` is added for an answer that is longer.
        """
        for given, text in self.answers.items():
            if len(given) != n_input:
                raise InputError(
                    f"the map {self.path} answers {given!r}, but an input is {plural(n_input, 'character')}."
                )
            if len(text) > n_answer:
                raise InputError(
                    f"the map {self.path} answers {given!r} with {text!r}, but an answer is at most "
                    f"{plural(n_answer, 'character')}; shorten it{advice}."
                )
        pairs: dict[object, object] = {
            alphabet.encode(given): alphabet.fit(text, n_answer) for given, text in self.answers.items()
        }
        every = len(alphabet) ** n_input
        if len(pairs) < every:
            first = next(row for row in product(range(len(alphabet)), repeat=n_input) if row not in pairs)
            raise InputError(
                f"the map {self.path} is not total: {every - len(pairs):,} of {every:,} inputs have no answer, the "
                f"first is {alphabet.decode(first)!r}; give each an answer. "
                f"The inputs are made of {alphabet}, {origin}."
            )
        return pairs


def read(path: Path) -> TextMap:
    """The map in a file; raises InputError for anything else, and for an input that stands there twice."""
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the map {path} cannot be read: {error}.") from error
    # the hook turns {"a": "b"} into [("a", "b")]; a JSON list holds no tuples
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) and isinstance(pair[1], str) for pair in pairs):
        raise InputError(f"the map {path} must be a JSON object from input text to answer text.")
    if not pairs:
        raise InputError(f"the map {path} is empty; give each input an answer.")
    twice = [given for given, times in Counter(given for given, _ in pairs).items() if times > 1]
    if twice:
        raise InputError(f"the map {path} answers {twice[0]!r} more than once; keep one answer.")
    return TextMap(path, dict(pairs))
