"""Text in and out: the symbols 0..V−1 written as characters."""

from __future__ import annotations

from dataclasses import dataclass

from elicitable.errors import InputError

#: Printable ASCII, from the space, chr(32), to the tilde, chr(126).
PRINTABLE = "".join(map(chr, range(32, 127)))

#: Alphabets up to this size are named character by character even where they are a run of code points.
SPELLED_OUT = 3


@dataclass(frozen=True)
class Alphabet:
    """Distinct characters; the character at place j is the symbol j.

    >>> Alphabet("abc").encode("cab")
    (2, 0, 1)
    """

    characters: str

    def __post_init__(self) -> None:
        if not self.characters:
            raise InputError("an alphabet needs at least 1 character, got none.")
        twice = [character for character in self.characters if self.characters.count(character) > 1]
        if twice:
            raise InputError(
                f"the characters of an alphabet must differ, but {twice[0]!r} stands more than once in "
                f"{self.characters!r}; keep one."
            )

    def __len__(self) -> int:
        return len(self.characters)

    def __str__(self) -> str:
        """How many symbols and which: the first and the last of a run of code points, or all of them."""
        first, last = self.characters[0], self.characters[-1]
        is_run = self.characters == "".join(map(chr, range(ord(first), ord(last) + 1)))
        which = f"{first!r} to {last!r}" if is_run and len(self) > SPELLED_OUT else repr(self.characters)
        return f"the {len(self)} symbols {which}"

    def encode(self, text: str) -> tuple[int, ...]:
        """The symbols of ``text``; raises InputError naming the first character that has none."""
        for place, character in enumerate(text):
            if character not in self.characters:
                raise InputError(
                    f"character {character!r} at place {place} of {text!r} is not among {self}; "
                    "use other characters or a larger vocabulary."
                )
        return tuple(self.characters.index(character) for character in text)

    def decode(self, symbols: tuple[int, ...]) -> str:
        """The text of ``symbols``, the inverse of :meth:`encode`."""
        return "".join(self.characters[symbol] for symbol in symbols)

    def fit(self, text: str, length: int) -> tuple[int, ...]:
        """``text`` encoded and filled up to ``length`` with symbol 0 (in printable ASCII, the space).

        Raises InputError when the text is longer.
        """
        if len(text) > length:
            raise InputError(
                f"the text {text!r} has {len(text)} characters, but the sequence holds {length}; "
                f"shorten the text or build with length {len(text)}."
            )
        symbols = self.encode(text)
        return symbols + (0,) * (length - len(text))


def printable(vocab: int) -> Alphabet:
    """The first ``vocab`` printable ASCII characters, from the space: at most 95.

    >>> printable(94).characters[0], printable(94).characters[-1]
    (' ', '}')
    """
    if not 1 <= vocab <= len(PRINTABLE):
        raise InputError(
            f"printable ASCII has {len(PRINTABLE)} characters, so text needs a vocabulary of 1 to "
            f"{len(PRINTABLE)}, not {vocab}; larger vocabularies work with numbers."
        )
    return Alphabet(PRINTABLE[:vocab])
