"""Explain the words of a report inside it: the glossary of the documentation, and links to it from a text.

The texts stand once, in ``templates/glossary.md``; ``docs/glossary.md`` is that file.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAGE = Path(__file__).parent / "templates" / "glossary.md"
_ENTRY = re.compile(r"^(?P<title>\S.*)\n:   (?P<text>(?:.*\n)(?:    .*\n)*)", flags=re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold one entry: its title, the words that mean it, its text as HTML, and the id of its place in a page."""

    title: str
    names: tuple[str, ...]
    html: str
    place: str


@cache
def entries() -> tuple[Entry, ...]:
    """Return the glossary, in its own order.

    >>> [entry.names for entry in entries() if entry.place == "word-prefix-mass"]
    [('Prefix mass', 'α')]
    """
    return tuple(_entry(found["title"], found["text"]) for found in _ENTRY.finditer(PAGE.read_text(encoding="utf-8")))


def _entry(title: str, text: str) -> Entry:
    head, _, others = title.partition(" (")
    names = tuple(name.strip() for name in (head, *others.rstrip(")").split(",")) if name.strip())
    own = names[-1] if others.isascii() and others else head  # two kinds of prefix are told apart by their own names
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(" ".join(text.split()), quote=False))
    return Entry(title, names, marked, "word-" + re.sub(r"\W+", "-", own.lower()).strip("-"))


def linked(texts: Sequence[str]) -> list[str]:
    """Return texts as HTML in which each word of the glossary is a link to it, where it first stands.

    >>> linked(["lora is worse by more than the margin.", "The margin & lora"])[1]
    'The margin &amp; lora'
    """
    places = {name.lower(): entry.place for entry in reversed(entries()) for name in entry.names}
    words = "|".join(re.escape(name) for name in sorted(places, key=len, reverse=True))
    seen: set[str] = set()

    def link(found: re.Match[str]) -> str:
        place = places[found[0].lower()]
        if place in seen:
            return found[0]
        seen.add(place)
        return f'<a class="word" href="#{place}">{found[0]}</a>'

    pattern = re.compile(rf"(?<![\w&-])(?:{words})(?![\w-])", flags=re.IGNORECASE)
    return [pattern.sub(link, html.escape(text)) for text in texts]
