"""Foretell, before anything is trained at length, whether a context suffices; and say so where that is not known."""
