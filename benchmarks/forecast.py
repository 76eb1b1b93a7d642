"""What a forecast costs beside the race that it goes before, in processor time, on the planted cases that were raced.

Prints the median and the quartiles of forecast / race over the cases, and the same for all signals, the first steps
included; ``records/planted-truth`` has the races, ``records/forecast`` what all signals took.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from kept import say_where

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from elicitable.forecasting.names import READ_OFF
from elicitable.forecasting.records import read_known
from elicitable.forecasting.signals import signals_of
from elicitable.planted.cases import case_named


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=Path("records/forecast"))
    parser.add_argument("--cases", type=int, default=20, help="at most so many")
    given = parser.parse_args()
    raced = [one for one in read_known(given.records) if one.race is not None][: given.cases]
    models = {one.model: case_named(one.case).load_model() for one in raced}
    taken = []
    say_where()
    for nth, one in enumerate([raced[0], *raced]):  # the first time around libraries are loaded
        began = time.process_time()
        signals_of(models[one.model], case_named(one.case).task(), names=READ_OFF)
        taken += [time.process_time() - began] if nth else []
    races = np.array([one.race.cpu_seconds for one in raced if one.race is not None])
    for what, seconds in (("forecast", np.array(taken)), ("all signals", np.array([one.cpu_seconds for one in raced]))):
        low, middle, high = np.quantile(seconds / races, [0.25, 0.5, 0.75])
        print(
            f"{what}: {np.median(seconds):.2f} s, {middle:.1%} of a race ({low:.1%} to {high:.1%}), {len(raced)} cases"
        )


if __name__ == "__main__":
    main()
