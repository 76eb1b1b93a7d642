"""Write predictions beside the rows that they answer, as they come: every column as it was, and three behind it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from typing import TYPE_CHECKING, Any, Final, TextIO

from elicitable.deploy.predict import Prediction, Predictor
from elicitable.errors import InputError, UnknownNameError
from elicitable.tasks.delimited import DELIMITED
from elicitable.tasks.incoming import Incoming, Rows
from elicitable.tasks.tables import is_unicode

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS: Final = ("csv", "tsv", "jsonl", "lines")
NATURAL: Final = {"csv": "csv", "tsv": "tsv"}  # the format of an answer to input of a kind; JSON lines for others
ADDED: Final = ("prediction", "probability", "error")


def format_for(rows: Rows, asked: str | None) -> str:
    """Return the format that was asked for, or the one that suits the input.

    Raises:
        UnknownNameError: there is no such format.
        InputError: it needs columns that the input does not name.
    """
    if asked is not None and asked not in FORMATS:
        raise UnknownNameError("format", asked, FORMATS)
    found = asked or NATURAL.get(rows.kind, "jsonl")
    if found in NATURAL and rows.kind not in (*NATURAL, "lines", "text"):
        raise InputError(
            f"a {found} file has the same columns in every row, which {rows.kind} need not have; use jsonl."
        )
    return found


def answered(rows: Iterable[Incoming], predictor: Predictor) -> Iterator[tuple[Incoming, Prediction]]:
    """Yield every row with its prediction, in order; rows that could not be read are not asked."""
    given, asked = tee(rows)  # never further apart than the rows that are answered together
    found = predictor(None if row.fault else row.values for row in asked)
    for row, prediction in zip(given, found, strict=True):
        yield row, Prediction(None, fault=row.fault) if row.fault else prediction


def write(
    file: TextIO, kind: str, rows: Rows, main: str, pairs: Iterable[tuple[Incoming, Prediction]]
) -> Iterator[tuple[Incoming, Prediction]]:
    """Write each pair to ``file`` as it comes, and yield it.

    CSV and TSV keep the input's cells, and its delimiter where it is a table of that kind, JSON lines its values, but
    for null in the place of a number that JSON does not have, such as NaN; ``lines`` are the bare answers, an empty
    line for a row that is broken. A column that is already there has a prediction's under a longer name.
    """
    columns = rows.columns or (main,)
    if kind in NATURAL:
        delimiter = rows.delimiter if kind == rows.kind else DELIMITED[f".{kind}"]
        put = _table(file, delimiter, columns, _names(columns))
    else:
        put = _lines(file) if kind == "lines" else _json(file)
    for row, prediction in pairs:
        put(row, prediction)
        yield row, prediction


def _names(taken: Sequence[str]) -> tuple[str, ...]:
    found = []
    for name in ADDED:
        while name in taken:
            name = f"{name}_"
        found.append(name)
    return tuple(found)


def _table(
    file: TextIO, delimiter: str, columns: Sequence[str], names: Sequence[str]
) -> Callable[[Incoming, Prediction], None]:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow([*columns, *names])

    def put(row: Incoming, prediction: Prediction) -> None:
        own = row.cells or tuple(str(row.values.get(name, "")) for name in columns)
        share = "" if prediction.probability is None else f"{prediction.probability:.6f}"
        writer.writerow([*own, prediction.answer or "", share, prediction.fault])

    return put


def _lines(file: TextIO) -> Callable[[Incoming, Prediction], None]:
    def put(row: Incoming, prediction: Prediction) -> None:
        file.write(" ".join((prediction.answer or "").splitlines()) + "\n")

    return put


def _json(file: TextIO) -> Callable[[Incoming, Prediction], None]:
    def put(row: Incoming, prediction: Prediction) -> None:
        names = _names(tuple(map(str, row.values)))
        added: dict[str, Any] = {names[0]: prediction.answer}
        if prediction.probability is not None:
            added[names[1]] = round(prediction.probability, 6)
        if prediction.fault:
            added |= {names[2]: prediction.fault, "place": row.place}
        file.write(_dumped({**row.values, **added}) + "\n")

    return put


def _dumped(record: dict[str, Any]) -> str:
    try:
        return _as_json(record)
    except ValueError:  # JSON has no word for a number that is none or has no end
        return _as_json(json.loads(json.dumps(record, default=str), parse_constant=lambda _: None))


def _as_json(record: dict[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=False, default=str, allow_nan=False)
    return text if text.isascii() or is_unicode(text) else json.dumps(record, default=str, allow_nan=False)
