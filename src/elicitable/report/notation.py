"""Write numbers in the same way in the terminal and in the report. ``-`` stands for "there is none"."""

from __future__ import annotations

import math

from elicitable.values import ArmResult

NONE = "-"


def score(arm: ArmResult, digits: int = 2) -> str:
    """Write ``0.97 [0.95, 0.98]``, mean and interval; the mean alone where there is no interval.

    >>> from elicitable.values import Budget, Rung
    >>> rung, budget = Rung(6.0, "weights", "weights"), Budget(1, 4, 0)
    >>> score(ArmResult("mine", rung, {}, budget, "ok", mean=0.97, low=0.95, high=0.98))
    '0.97 [0.95, 0.98]'
    """
    if arm.mean is None:
        return NONE
    interval = interval_of(arm)
    if interval is None:
        return f"{arm.mean:.{digits}f}"
    return f"{arm.mean:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def interval_of(arm: ArmResult) -> tuple[float, float] | None:
    """Return the low and high end of the arm's interval, or None."""
    return None if arm.low is None or arm.high is None else (arm.low, arm.high)


def count(number: int) -> str:
    """Write a count in at most seven characters.

    >>> [count(0), count(12_288), count(134_515_008), count(7_000_000_000)]
    ['0', '12,288', '134.5M', '7.0B']
    """
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:,}"


def byte_size(number: int) -> str:
    """Write bytes in decimal units.

    >>> [byte_size(0), byte_size(24_576), byte_size(269_030_016)]
    ['0 B', '24.6 kB', '269.0 MB']
    """
    for size, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"


def rate(learning_rate: float | None) -> str:
    """Write a learning rate to two digits, as a decimal where that is short.

    >>> [rate(1.0), rate(0.1), rate(0.0003), rate(5e-05), rate(0.00015), rate(None)]
    ['1', '0.1', '0.0003', '5e-5', '1.5e-4', '-']
    """
    if learning_rate is None or not math.isfinite(learning_rate):
        return NONE
    text = f"{learning_rate:.2g}"
    if "e" not in text and len(text) <= len("0.0003"):
        return text
    mantissa, exponent = f"{learning_rate:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def nats(side_effect_nats: float | None) -> str:
    """Write a signed change in nats.

    >>> [nats(0.05), nats(-0.002), nats(None)]
    ['+0.05', '0.00', '-']
    """
    if side_effect_nats is None or not math.isfinite(side_effect_nats):
        return NONE
    text = f"{side_effect_nats:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def duration(seconds: float) -> str:
    """Write a time span to two units.

    >>> [duration(0.4), duration(61), duration(3725)]
    ['0.4 s', '1 min 01 s', '1 h 02 min']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def points(margin: float) -> str:
    """Write a margin on the 0 to 1 scale in points.

    >>> [points(0.02), points(0.015), points(0.01)]
    ['2 points', '1.5 points', '1 point']
    """
    number = f"{100 * margin:.3g}"
    return f"{number} point" if number == "1" else f"{number} points"


def plural(number: int, noun: str, several: str = "") -> str:
    """Write a number with its noun.

    >>> [plural(1, "seed"), plural(1200, "item")]
    ['1 seed', '1,200 items']
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {several or noun + 's'}"


def visible(text: str) -> str:
    """Write ``text`` so that any font can show it: blanks and line ends as signs, rare characters as code points.

    >>> visible(" "), visible("a\\n"), visible("永")
    ('␣', 'a⏎', 'U+6C38')
    """
    shown = text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣" if not text.strip() else " ")
    return "".join(c if c.isprintable() and ord(c) < 0x2500 else f"U+{ord(c):04X}" for c in shown)


def drawn(text: str) -> str:
    """Write the same for a figure, which takes what stands between two dollar signs for mathematics."""
    return visible(text).replace("$", r"\$")
