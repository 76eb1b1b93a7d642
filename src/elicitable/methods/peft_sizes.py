"""What the size of a weight method of PEFT sets: a rank most often, else what its numbers are counted by.

A larger size always trains more numbers. Where PEFT's own setting falls as they rise, or must divide the widths of the
layers, a size is the place in the list of its values: size 1 is the one that trains the fewest.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Widths = Sequence[tuple[int, int]]  # what goes into each layer that is meant, and what comes out

# The setting that the size is; every other type's is its rank ``r``, where it has one.
_SETTINGS = {
    "ADALORA": ("init_r", "target_r"),
    "ADAMSS": ("subspace_rank",),
    "ADAPTION_PROMPT": ("adapter_len",),
    "FOURIERFT": ("n_frequency",),
    "WAVEFT": ("n_frequency",),
}
_MOST_PROJECTED = 16  # TinyLoRA keeps rank⁴ random numbers for each layer


def settings_of(kind: str, size: int, widths: Widths) -> dict[str, Any]:
    """Return what PEFT is given for ``size``; nothing for a type without one, or where no layers are meant.

    Raises:
        ValueError: the layers have no such size; the message says how many they have.
    """
    if kind in _SOLVED:
        return _SOLVED[kind](size, widths) if widths else {}
    return dict.fromkeys(_settings(kind), size)


def has_size(kind: str) -> bool:
    """Say whether a type can be made larger and smaller."""
    return kind in _SOLVED or bool(_settings(kind))


def _settings(kind: str) -> tuple[str, ...]:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    made: Any = PEFT_TYPE_TO_CONFIG_MAPPING[kind]  # type: ignore[index]
    has_rank = "r" in {one.name for one in dataclasses.fields(made)}
    return _SETTINGS.get(kind, ("r",) if has_rank else ())


def _boft(size: int, widths: Widths) -> dict[str, Any]:
    return {"boft_block_size": _nth(_inner_divisors(widths), size)}


def _c3a(size: int, widths: Widths) -> dict[str, Any]:
    """Smaller blocks are more of them, each with as many numbers as it is wide."""
    return {"block_size": _nth(_divisors(width for ends in widths for width in ends)[::-1], size)}


def _frod(size: int, widths: Widths) -> dict[str, Any]:
    """So many entries in the sparse matrix of the widest layer."""
    return {"sparse_rate": _share(size, max(inner for inner, _ in widths) ** 2)}


def _oft(size: int, widths: Widths) -> dict[str, Any]:
    return {"oft_block_size": _nth(_inner_divisors(widths), size)}


def _osf(size: int, widths: Widths) -> dict[str, Any]:
    """So many of the smallest singular directions of the widest layer, and the same share of the others'."""
    widest = max(map(min, widths))
    return {"effective_rank": _share(widest - size, widest)}  # PEFT asks for the share that stays as it is


def _randlora(size: int, widths: Widths) -> dict[str, Any]:
    """A lower rank needs more bases, each with a number for every row; of one number of bases, the lowest rank."""
    widest = max(map(min, widths))
    ranks = {math.ceil(widest / bases) for bases in range(1, widest + 1)}
    rank = _nth(sorted(ranks, reverse=True), size)
    return {"r": rank, "randlora_alpha": 20 * rank}


def _road(size: int, widths: Widths) -> dict[str, Any]:
    return {"variant": _nth(("road_1", "road_2", "road_4"), size)}


def _supertuning(size: int, widths: Widths) -> dict[str, Any]:
    """So many entries of the smallest layer, and the same share of the others'."""
    return {"sparsity": 1 - _share(size, min(inner * outer for inner, outer in widths))}


def _tinylora(size: int, widths: Widths) -> dict[str, Any]:
    """A matrix of that rank in each layer, and as many numbers as it has entries: more would say nothing more."""
    rank = _nth(range(1, 1 + min(_MOST_PROJECTED, *map(min, widths))), size)
    return {"r": rank, "u": rank**2}


def _unilora(size: int, widths: Widths) -> dict[str, Any]:
    """So many numbers in all; of a rank at which each stands in about four places."""
    return {"theta_d_length": size, "r": max(4, math.ceil(4 * size / sum(map(sum, widths))))}


def _vblora(size: int, widths: Widths) -> dict[str, Any]:
    return {"num_vectors": 1 + size}  # two are mixed everywhere


_SOLVED: Mapping[str, Callable[[int, Widths], dict[str, Any]]] = {
    "BOFT": _boft,
    "C3A": _c3a,
    "FROD": _frod,
    "OFT": _oft,
    "OSF": _osf,
    "RANDLORA": _randlora,
    "ROAD": _road,
    "SUPERTUNING": _supertuning,
    "TINYLORA": _tinylora,
    "UNILORA": _unilora,
    "VBLORA": _vblora,
}


def _inner_divisors(widths: Widths) -> list[int]:
    """The block sizes that divide what goes into every layer; a block of one has nothing to turn."""
    return [one for one in _divisors(inner for inner, _ in widths) if one > 1]


def _divisors(widths: Any) -> list[int]:
    """Return the common divisors of ``widths``, the smallest first."""
    most = math.gcd(*widths)
    return [one for one in range(1, most + 1) if most % one == 0]


def _nth(values: Sequence[Any], size: int) -> Any:
    if size > len(values):
        raise ValueError(f"these layers have {len(values)} sizes of it")
    return values[size - 1]


def _share(count: int, whole: int) -> float:
    """The share of ``whole`` that PEFT, which rounds down, makes ``count`` of."""
    if count > whole:
        raise ValueError(f"these layers have {whole:,} sizes of it")
    return (count + 0.5) / whole
