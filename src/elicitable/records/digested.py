"""Keep one JSON object with the digest of its own content, so that whoever reads it knows whether it was altered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elicitable.cache import digest_of_json, replace_file
from elicitable.errors import InputError, StoreError
from elicitable.untrusted import read_object

DIGEST = "digest"  # the key that stands in a file and not in what is read from it


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` with the SHA-256 of it as canonical JSON.

    >>> sorted(with_digest({"steps": 3}))
    ['digest', 'steps']
    """
    return {**content, DIGEST: digest_of_json(content)}


def is_whole(held: Mapping[str, Any]) -> bool:
    """Say whether ``held`` is what its digest speaks of; False where it carries none.

    >>> is_whole(with_digest({"steps": 3})), is_whole(with_digest({"steps": 3}) | {"steps": 4}), is_whole({})
    (True, False, False)
    """
    return held.get(DIGEST) == digest_of_json({name: one for name, one in held.items() if name != DIGEST})


def write_digested(path: Path, content: Mapping[str, Any], advice: str) -> None:
    """Write ``content`` with its digest, whole or not at all; numbers have to be finite.

    Raises:
        StoreError: ``path`` cannot be written; the message ends with ``advice``.
    """
    data = json.dumps(with_digest(content), indent=1, allow_nan=False) + "\n"
    replace_file(path, data.encode(), advice)


def read_digested(path: Path, advice: str) -> dict[str, Any]:
    """Read what :func:`write_digested` wrote, without the digest.

    Raises:
        StoreError: it cannot be read, or is not what was written; the message names the file and ends with ``advice``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     write_digested(Path(place) / "one.json", {"steps": 3}, "Free the place.")
    ...     read_digested(Path(place) / "one.json", "Write it again.")
    {'steps': 3}
    """
    try:
        held = read_object(path)
    except InputError as error:
        raise StoreError(f"{error}. {advice}") from error
    if not is_whole(held):
        lacks = "it carries no digest" if DIGEST not in held else "its digest is another"
        raise StoreError(f"{path} was altered, or is damaged: {lacks}. {advice}")
    return {name: one for name, one in held.items() if name != DIGEST}
