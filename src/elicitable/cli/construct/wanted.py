"""What a construction is to do, read off what a person typed: its alphabet, its target, and the sizes that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from elicitable.cli.construct import text_map
from elicitable.cli.construct.options import Request
from elicitable.cli.construct.text_map import TextMap
from elicitable.constructions import catalog, longer_answers
from elicitable.constructions.alphabet import PRINTABLE, Alphabet, printable
from elicitable.constructions.construction import Target
from elicitable.errors import InputError
from elicitable.report.notation import plural

VOCAB = 10


@dataclass(frozen=True)
class Wanted:
    """What a construction is to do: its target and the alphabet it is told in, None where only numbers were asked for.

    ``origin`` says whose characters the alphabet is; ``texts`` is the map that the target was read from.
    """

    target: Target | None = None
    alphabet: Alphabet | None = None
    origin: str = ""
    texts: TextMap | None = None

    @property
    def characters(self) -> str:
        """The characters of the alphabet; none where there is no alphabet."""
        return "" if self.alphabet is None else self.alphabet.characters


def wanted_of(request: Request) -> tuple[Request, Wanted]:
    """What was asked for, read and checked, and the request with the sizes that follow from it.

    Raises:
        InputError: the map cannot be read, or alphabet, text, map and sizes do not fit together.
    """
    texts = None if request.told.mapping is None else text_map.read(request.told.mapping)
    alphabet, origin = _alphabet(request, texts)
    vocab = request.built.vocab if alphabet is None else len(alphabet)
    sized = replace(request, built=replace(request.built, vocab=vocab), length=_length(request, texts))
    return sized, Wanted(_target(sized, alphabet, origin, texts), alphabet, origin, texts)


def _alphabet(request: Request, texts: TextMap | None) -> tuple[Alphabet | None, str]:
    """The characters of the symbols and whose they are: those typed, those of the map, or printable ASCII."""
    vocab = request.built.vocab
    if request.told.alphabet is not None:
        return _typed_alphabet(request.told.alphabet, vocab), "given by --alphabet"
    if texts is not None and vocab is None:
        only = texts.only_answered()
        of_answers = f" ({only!r} only in answers)" if only else ""
        return _shown(texts.alphabet()), f"the characters of the map's inputs and answers{of_answers}"
    told = {"--text": request.text, "--map": texts, "--input": request.told.given}
    asked = [option for option, value in told.items() if value not in (None, "")]
    if not asked:
        return None, ""
    if vocab is not None and vocab > len(PRINTABLE):
        raise InputError(
            f"{asked[0]} needs a vocabulary of at most {len(PRINTABLE)}, the printable ASCII characters, or --alphabet."
        )
    return printable(VOCAB if vocab is None else vocab), "the first printable ASCII characters"


def _typed_alphabet(characters: str, vocab: int | None) -> Alphabet:
    """The alphabet of --alphabet; raises InputError for one that --vocab disagrees with."""
    alphabet = _shown(Alphabet(characters))
    if vocab is not None and vocab != len(alphabet):
        raise InputError(
            f"--vocab {vocab} disagrees with the {plural(len(alphabet), 'character')} of --alphabet; leave --vocab out."
        )
    return alphabet


def _shown(alphabet: Alphabet) -> Alphabet:
    """The alphabet; raises InputError for a character that a terminal cannot show."""
    for character in alphabet.characters:
        if not character.isprintable():
            raise InputError(f"the character {character!r} cannot be shown; an alphabet has printable characters only.")
    return alphabet


def _length(request: Request, texts: TextMap | None) -> int | None:
    """The length typed, or else that of the text or of the longest answer (at least 1)."""
    if request.length is None and request.text is not None:
        return len(request.text)
    if request.length is None and texts is not None and request.name == longer_answers.NAME:
        return max(1, texts.longest)
    return request.length


def _target(sized: Request, alphabet: Alphabet | None, origin: str, texts: TextMap | None) -> Target | None:
    """The text or the map in symbols; None where neither was given."""
    if alphabet is not None and sized.text is not None:
        return alphabet.fit(sized.text, sized.length or 0)
    if alphabet is None or texts is None:
        return None
    known = catalog.entry(sized.name)
    n_input, n_answer, advice = 1, 1, ""
    if known.option == "inputs":
        n_input = known.default if sized.inputs is None else sized.inputs
    elif known.option == "length":
        n_answer, advice = sized.length or 0, f" or give --length {texts.longest}"
    return texts.encode(alphabet, origin, n_input, n_answer, advice)
