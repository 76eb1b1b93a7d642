"""Give every reader hostile input; count what it takes, what it refuses, and whatever else it raises."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from tests.faults.counts import Counted, Known, Only
from tests.faults.readers import READERS, Reader

LONGEST_SECONDS = 20  # of the processor, which on a busy machine are many more of the clock
LONGEST_WAIT = 600  # seconds of the clock
MOST_MEBIBYTES = 1024
PART = 5_000  # inputs of a process: hypothesis keeps what it drew, which is not the reader's memory
ENOUGH = 100  # inputs, of which some have to be as good as those that were altered


def fuzz(count: int, place: Path, seed: int, only: Only, is_known: Known) -> Iterator[Counted]:
    """Give every reader (or those of ``only``) ``count`` inputs; what ``is_known`` is left out."""
    for reader in READERS:
        if (only is None or reader.name in only) and not is_known(reader.name, count):
            here = place / reader.name.replace(" ", "-")
            parts = [min(PART, count - first) for first in range(0, count, PART)]
            yield _together([_in_a_process(reader, some, here, seed + nth) for nth, some in enumerate(parts)])


def _together(parts: list[Counted]) -> Counted:
    ends = Counter[str]()
    for part in parts:
        ends.update(part.ends)
    wrong = list(dict.fromkeys(one for part in parts for one in part.wrong))
    peak = max(part.peak_mebibytes for part in parts)
    return replace(
        parts[0], ends=dict(ends), wrong=wrong, seconds=sum(part.seconds for part in parts), peak_mebibytes=peak
    )


def _in_a_process(reader: Reader, count: int, place: Path, seed: int) -> Counted:
    place.mkdir(parents=True)
    began, answer = time.monotonic(), place / "answer.json"
    number = os.fork()
    if not number:
        try:
            sys.stderr = sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            answer.write_text(json.dumps(tried(reader, count, place, seed)), encoding="utf-8")
        except BaseException:
            answer.write_text(json.dumps([{}, [traceback.format_exc()]]), encoding="utf-8")
        finally:
            os._exit(0)
    _, status, used = os.wait4(number, 0)
    died = [{}, [f"{reader.name}: the process ended with {os.waitstatus_to_exitcode(status)}"]]
    ends, wrong = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else died
    shutil.rmtree(place)
    if sum(ends.values()) >= ENOUGH and not ends.get("taken"):
        wrong.append(f"{reader.name}: none of its inputs is taken, so none leads far into the reader")
    peak = used.ru_maxrss / 1024
    if peak > MOST_MEBIBYTES:
        wrong.append(f"{reader.name}: a peak of {peak:,.0f} MiB")
    return Counted("inputs", reader.name, ends, wrong, time.monotonic() - began, seed, peak)


def tried(reader: Reader, count: int, place: Path, seed: int) -> tuple[dict[str, int], list[str]]:
    """Give ``reader`` ``count`` inputs; how many it took and refused, and a complaint for each other kind of end."""
    counts: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    (place / "good").mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _too_slow)

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.inputs(place / "good"))
    def each(data: Any) -> None:
        here = place / "here"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        end = outcome(reader, here, data)
        counts[end.partition(":")[0]] += 1
        if end.startswith("WRONG"):
            wrong.setdefault(end, f"{reader.name}: {end} with {str(data)[:1500]}")

    each()
    return dict(counts), list(wrong.values())


def outcome(reader: Reader, place: Path, data: Any) -> str:
    """Read one input: ``taken``, ``refused``, or ``WRONG: …`` with the exception and where it was raised."""
    from elicitable.errors import ElicitableError

    signal.setitimer(signal.ITIMER_PROF, LONGEST_SECONDS)
    signal.alarm(LONGEST_WAIT)
    try:
        reader.read(place, data)
    except ElicitableError:
        return "refused"
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "elicitable" in frame.filename]
        at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"WRONG: {type(error).__name__} at {at}: {str(error)[:160]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    return "taken"


def _too_slow(number: int, frame: object) -> None:
    raise TimeoutError(f"it takes more than {LONGEST_SECONDS} s, or waits for more than {LONGEST_WAIT} s")
