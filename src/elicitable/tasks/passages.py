"""Hold plain English in the public domain, on which side effects are measured: what an adaptation costs elsewhere."""

from __future__ import annotations

from elicitable.tasks.base import fingerprint_of
from elicitable.values import Item

# Openings of works in the public domain (Lincoln 1863, Austen 1813, Melville 1851, Darwin 1859).
_PASSAGES = (
    (
        "Four score and seven years ago our fathers brought forth on this continent, a new nation,",
        " conceived in Liberty, and dedicated to the proposition that all men are created equal. Now we are engaged in"
        " a great civil war, testing whether that nation, or any nation so conceived and so dedicated, can long endure."
        " We are met on a great battle-field of that war.",
    ),
    (
        "It is a truth universally acknowledged, that a single man in possession of a good fortune,",
        " must be in want of a wife. However little known the feelings or views of such a man may be on his first"
        " entering a neighbourhood, this truth is so well fixed in the minds of the surrounding families, that he is"
        " considered the rightful property of some one or other of their daughters.",
    ),
    (
        "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse,",
        " and nothing particular to interest me on shore, I thought I would sail about a little and see the watery part"
        " of the world. It is a way I have of driving off the spleen and regulating the circulation.",
    ),
    (
        "When on board H.M.S. Beagle, as naturalist, I was much struck with certain facts in the distribution",
        " of the inhabitants of South America, and in the geological relations of the present to the past inhabitants"
        " of that continent. These facts seemed to me to throw some light on the origin of species, that mystery of"
        " mysteries, as it has been called by one of our greatest philosophers.",
    ),
)

ITEMS = tuple(Item(prompt=opening, target=rest) for opening, rest in _PASSAGES)
FINGERPRINT = fingerprint_of(text for passage in _PASSAGES for text in passage)
