"""Write the commands that follow a verdict, with everything that was typed of it and what the race found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

from elicitable.untrusted import command_line

if TYPE_CHECKING:
    from elicitable.values import ArmResult

LIMIT = "--time-limit"
SIZES = ("length", "rank")  # what a setting calls the size of a method: virtual tokens, or a rank
STARTS = ("init", "layer")  # what a setting calls where a method starts, or stands


@dataclass(frozen=True)
class Typed:
    """Hold what was typed: ``one`` of it says how one arm is trained and scored, ``race`` what a race has besides.

    ``own`` are the methods of a person's own, by name, as they were typed; only they can name them again. ``out`` is
    the folder, for what goes on from what is kept there.
    """

    one: Sequence[str]
    race: Sequence[str] = ()
    own: Mapping[str, str] = field(default_factory=dict)
    out: Sequence[str] = ()

    def tune(self, arm: ArmResult, setting: Mapping[str, str] | None = None) -> str:
        """Return the command that trains ``arm`` alone as in the race, but for ``setting``.

        >>> from elicitable.values import ArmResult, Budget, Rung
        >>> rung = Rung(2, 0, "a prefix", "prefix", "context")
        >>> arm = ArmResult("kv-prefix", rung, {"length": 4}, Budget(8, 8, 4), "ok", learning_rate=0.1)
        >>> Typed(["--task", "my rows.csv"]).tune(arm)
        "elicitable tune --task 'my rows.csv' --method kv-prefix --size 4 --learning-rate 0.1"
        """
        given = settings_of(arm) | dict(setting or {})
        method = self.own.get(arm.method, arm.method)
        return command_line("elicitable", "tune", *_without(self.one, given), "--method", method, *_flat(given))

    def verdict(self, setting: Mapping[str, str] | None = None, *more: str) -> str:
        """Return the command that races again, but for ``setting``, and with ``more``."""
        given = dict(setting or {})
        return command_line("elicitable", "verdict", *_without([*self.one, *self.race], given), *_flat(given), *more)

    def on(self, *more: str, setting: Mapping[str, str] | None = None) -> str:
        """Return the command that goes on with the race, with ``more``, from what is kept in its folder."""
        return self.verdict(setting, *more, *self.out)

    def longer(self) -> str:
        """Return the command that goes on asking why, with twice the time limit that was typed.

        >>> Typed(["--task", "rows.csv"], ["--time-limit", "1.5h"]).longer()
        'elicitable verdict --task rows.csv --time-limit 3h --why'
        """
        limit = next((after for name, after in pairwise(self.race) if name == LIMIT), "")
        number = limit.strip().rstrip("smh ")
        if not number:
            return self.on("--why")
        twice = format((2 * Decimal(number)).normalize(), "f")  # without an exponent, which no limit is written with
        return self.on("--why", setting={LIMIT: twice + limit.strip()[len(number) :].strip()})


def settings_of(arm: ArmResult) -> dict[str, str]:
    """Return what a person gives to train ``arm`` as the race did: size, start, rate, and how it reads items.

    A start at what the race chose cannot be typed, as it is ids.
    """
    size = next((arm.setting[name] for name in SIZES if name in arm.setting), None)
    given = {} if size is None else {"--size": str(size)}
    if not arm.setting.get("origin"):
        given |= {f"--{name}": str(arm.setting[name]) for name in STARTS if name in arm.setting}
    if "chat" in arm.setting:
        given["--chat"] = "on" if arm.setting["chat"] else "off"
    if arm.learning_rate is not None:
        given["--learning-rate"] = f"{arm.learning_rate:g}"
    return given


def _flat(setting: Mapping[str, str]) -> list[str]:
    return [part for pair in setting.items() for part in pair]


def _without(typed: Sequence[str], setting: Mapping[str, str]) -> list[str]:
    """Leave out the options that are given anew."""
    kept, skip = [], False
    for part in typed:
        if skip:
            skip = False
        elif part.partition("=")[0] in setting:
            skip = "=" not in part
        else:
            kept.append(part)
    return kept
