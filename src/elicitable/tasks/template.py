"""Show a row as text: a template with slots for its columns, and what stands between prompt and answer.

**Where the space goes.** A prompt ends without a space and every target begins with the separator, by default one
space, so that ``prompt + target`` is the text as a person would write it, and the common tokenizers, which join a
space with the word after it, see the same tokens as in running text.

**Empty cells.** Where a template shows several columns, a line whose slots are all empty is left out: Alpaca's
``{instruction}\\n{input}`` is the instruction alone where there is no input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from elicitable.errors import InputError, UnknownNameError
from elicitable.tasks.base import Kind
from elicitable.tasks.splitting import Row
from elicitable.untrusted import typed
from elicitable.values import Item

SLOTS: Final[dict[Kind, str]] = {"classification": "{text}", "generation": "{prompt}"}
_SLOT: Final = "\0"  # no template holds one
MAIN: Final = ("text", "prompt")  # either slot is the main column, unless a column has that name


@dataclass(frozen=True, slots=True)
class Template:
    """Hold ``literals[i]`` stands before slot i, and the last one at the end; slot i shows cell ``slots[i]`` of a row.

    ``names`` are the columns of the cells. Without literals the rows are conversations, which a model's chat
    template will write out, and an answer stands without a separator.
    """

    literals: tuple[str, ...]
    slots: tuple[int, ...] = (0,)
    names: tuple[str, ...] = ("text",)
    separator: str = " "

    @classmethod
    def parse(
        cls, template: str, kind: Kind, separator: str | None = None, columns: Sequence[str] = (), main: str = "text"
    ) -> Template:
        r"""Read a template: ``{text}`` or ``{prompt}`` is the ``main`` column, any other of ``columns`` goes by name.

        ``\n`` and ``\t`` typed as two characters are a line break and a tab, in both. White space at the end of the
        template is taken as the separator; otherwise that is one space. ``separator`` overrides both. Raises
        :class:`InputError` where no column is shown or one is shown twice, and :class:`UnknownNameError` for a name
        in braces that is not a column; braces around anything but a name stay as they are.

        >>> Template.parse("Review: {text}\nSentiment:", "classification").item(Row(("Fine.",), "positive"))
        Item(prompt='Review: Fine.\nSentiment:', target=' positive')
        >>> Template.parse("{prompt}\n", "generation").item(Row(("1+1=",), "2"))
        Item(prompt='1+1=', target='\n2')
        >>> two = Template.parse("{title}\n{body}", "generation", columns=["title", "body"], main="body")
        >>> two.item(Row(("", "It rained."), "Weather")).prompt
        'It rained.'
        """
        template = typed(template).replace(_SLOT, "")
        body = template.rstrip()
        tail = template[len(body) :] or " "
        known = {**dict.fromkeys(MAIN, main), **{name: name for name in columns}}
        any_name = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
        pieces = re.split(r"\{(" + any_name + r")\}", body)
        shown = [known[name] for name in pieces[1::2]]
        _check(template, kind, shown, pieces[::2], columns)
        names = sorted(shown)  # so that the order in a template is not part of what a row is
        slots = tuple(names.index(name) for name in shown)
        return cls(tuple(pieces[::2]), slots, tuple(names), tail if separator is None else typed(separator))

    def item(self, row: Row, ending: str = "") -> Item:
        """Make the item that asks for the row's answer; ``ending`` stands after every answer."""
        target = self.target(row.answer, ending)
        if not self.literals:
            return Item(row.messages, target, accepted=row.accepted)
        text, spans = "", []
        for piece, is_cell in self._pieces(tuple(map(str, row.cells))):
            if is_cell and piece:
                spans.append((len(text), len(text) + len(piece)))
            text += piece
        choices = tuple(self.target(one, ending) for one in row.choices)
        return Item(text, target, tuple(spans), choices, accepted=row.accepted)

    def target(self, answer: str, ending: str = "") -> str:
        """Write what is to be written for ``answer``."""
        return (self.separator if self.literals else "") + answer + ending

    def shown(self, cells: Sequence[str]) -> str:
        """Write the prompt that shows ``cells``, line by line of the template."""
        return "".join(piece for piece, _ in self._pieces(cells))

    def _pieces(self, cells: Sequence[str]) -> Iterator[tuple[str, bool]]:
        """Yield the prompt in pieces, each with whether it is a cell."""
        rest = iter([cells[slot] for slot in self.slots])
        has_line = False
        for line in _SLOT.join(self.literals).split("\n"):
            first, *literals = line.split(_SLOT)
            filled = [(next(rest), literal) for literal in literals]
            if len(self.slots) == 1 or not filled or any(cell for cell, _ in filled):
                yield ("\n" if has_line else "") + first, False
                for cell, literal in filled:
                    yield cell, True
                    yield literal, False
                has_line = True


def _check(template: str, kind: Kind, names: Sequence[str], literals: Sequence[str], columns: Sequence[str]) -> None:
    others = f", or columns by name: {', '.join('{' + name + '}' for name in columns)}" if len(columns) > 1 else ""
    if not names or len(set(names)) < len(names):
        raise InputError(f"template {template!r} must contain {SLOTS[kind]} exactly once{others}")
    if columns:
        for name in re.findall(r"\{(\w+(?:\.[^\W\d]\w*)*)\}", "".join(literals)):
            raise UnknownNameError(f"column in the template {template!r}", name, columns)
