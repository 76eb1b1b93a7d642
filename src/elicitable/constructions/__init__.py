"""The theorems as transformers that run: exact constructions, one theorem a file.

:mod:`any_sequence` (theorem 1), :mod:`any_map` (theorem 2), :mod:`longer_answers`, :mod:`packed_inputs` and
:mod:`tabled_inputs` build a :class:`~elicitable.constructions.construction.Construction`; :mod:`catalog` builds them by
name. :mod:`verify`, :mod:`capacity`, :mod:`reach` and :mod:`trace` run them and return records.
:mod:`continuous_function` is a prefix for a single head that approximates a function.

Import the modules: this package imports nothing by itself, so that it costs nothing.
"""
