"""Where fetched and converted files are kept between runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from elicitable.errors import StoreError


def cache_dir() -> Path:
    """The cache folder: ``ELICITABLE_CACHE`` where it is set and not empty, else ``~/.cache/elicitable``.

    The folder need not exist; nothing is created here.

    >>> cache_dir().is_absolute()
    True
    """
    chosen = os.environ.get("ELICITABLE_CACHE")
    return (Path(chosen) if chosen else Path.home() / ".cache" / "elicitable").expanduser().absolute()


CACHE_ADVICE = "Free the place, or set ELICITABLE_CACHE to a folder that can be written to."


def replace_file(path: Path, data: bytes, advice: str = CACHE_ADVICE) -> None:
    """Write ``data`` to ``path`` by rename: a reader sees the old file or the whole new one, never a part.

    Creates the folder. Raises :class:`StoreError`, which ends with ``advice``, where that is impossible.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_file(Path(folder) / "new" / "file", b"data")
    ...     (Path(folder) / "new" / "file").read_bytes()
    b'data'
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except OSError as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror or error}. {advice}") from error
