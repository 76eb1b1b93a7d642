"""A prefix makes a single attention head approximate any continuous function; longer prefixes do it better.

The head is frozen: its query is λ times the content token, its key and value read two parts of the prefix. Prefix
vector k holds a control point b_k on the unit circle and a value v_k, so that at a content token x on the circle

    f̂(x) = Σ_k exp(λ·xᵀb_k)·v_k / (Σ_k exp(λ·xᵀb_k) + exp(λ − M)),

a kernel smoother whose bumps have width 1/√λ; exp(λ − M) is what the content token gives to itself. A function on
[a, b] is carried to the circle by x = cos θ, which keeps smooth functions smooth up to the ends. (Petrov, Torr,
Bibi, *Prompting a Pretrained Transformer Can Be a Universal Approximator*, ICML 2024, arXiv 2402.14753: there on
spheres of any dimension; here the circle.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from elicitable.constructions.blocks import Head
from elicitable.constructions.construction import Numbers
from elicitable.constructions.precision import dtype_name
from elicitable.constructions.subspaces import Subspaces
from elicitable.constructions.transformer import AttentionHead
from elicitable.errors import InputError, UnknownNameError

Function = Callable[[Numbers], Numbers]

#: [point on the circle, 1 for content, value]: the residual stream of this construction.
STREAM = Subspaces((("point", 2), ("content", 1), ("value", 1)))

#: λ·(spacing of the control points)²: bumps as wide as their spacing. A wider bump blurs more; a narrower one leaves
#: ripples between the control points (at 1 they are 2·exp(−2π²) = 5e-9 of the function).
OVERLAP = 1.0

#: How the values v_k may be chosen.
VALUES = ("sampled", "interpolating")

#: M: the score that keeps the content token from attending to itself, relative to the control points' best.
CONTENT_PENALTY = 200.0


@dataclass(frozen=True)
class ApproximationPoint:
    """The error of one prefix length: over ``tested`` points, largest and root mean square.

    ``concentration`` is λ. ``values`` says how v_k were chosen.
    """

    prefix_length: int
    concentration: float
    max_error: float
    rms_error: float
    tested: int
    values: str
    dtype: str


@dataclass(frozen=True)
class Approximation:
    """Error against prefix length, and the curve of the longest prefix for a picture.

    ``order`` is the slope −d log(max error)/d log(prefix length) by least squares, or NaN for fewer than two lengths.
    """

    points: tuple[ApproximationPoint, ...]
    interval: tuple[float, float]
    inputs: tuple[float, ...]
    wanted: tuple[float, ...]
    given: tuple[float, ...]
    order: float


def build(prefix_length: int, *, dtype: torch.dtype = torch.float64) -> AttentionHead:
    """The frozen head for prefixes of this length: one number, λ, depends on it.

    >>> head = build(prefix_length=16)
    >>> sum(parameter.numel() for parameter in head.parameters())
    28
    """
    if prefix_length < 2:
        raise InputError(f"the circle needs at least 2 control points, got {prefix_length}.")
    point, content = STREAM.read("point"), STREAM.read("content")
    # query (x, 1), key (b, 0) for the prefix and (0, 0, −M/λ) plus its own point for the content:
    # scores λ·xᵀb_k and λ − M, so that the content keeps e^−M of what a control point at x would get
    query = np.concatenate([point, content])
    key = np.concatenate([point, -CONTENT_PENALTY / concentration(prefix_length) * content])
    head = AttentionHead(Head("smoother", query, key, STREAM.read("value")), concentration(prefix_length))
    return head.to(dtype)


def concentration(prefix_length: int) -> float:
    """λ = (n/2π)²: the bumps' width 1/√λ equals the spacing 2π/n of n control points."""
    return OVERLAP * (prefix_length / (2 * math.pi)) ** 2


def angles(prefix_length: int) -> Numbers:
    """θ_k = 2π(k + ½)/n: evenly spaced, and symmetric about the axis of the interval."""
    return 2 * np.pi * (np.arange(prefix_length) + 0.5) / prefix_length


def on_circle(theta: Numbers) -> Numbers:
    """(cos θ, sin θ): (…,) to (…, 2)."""
    return np.stack([np.cos(theta), np.sin(theta)], axis=-1)


def content_token(inputs: Numbers, interval: tuple[float, float]) -> Numbers:
    """x ∈ [a, b] at θ = arccos((2x − a − b)/(b − a)): (points,) to (points, stream)."""
    low, high = interval
    theta = np.arccos(np.clip((2 * inputs - low - high) / (high - low), -1.0, 1.0))
    tokens = np.zeros((len(inputs), STREAM.size))
    tokens[:, STREAM.slice("point")] = on_circle(theta)
    tokens[:, STREAM.slice("content")] = 1.0
    return tokens


def prefix(
    function: Function,
    prefix_length: int,
    interval: tuple[float, float] = (0.0, 1.0),
    values: Literal["sampled", "interpolating"] = "sampled",
) -> Numbers:
    """The prefix (n, stream) for ``function`` on ``interval``.

    "sampled": v_k = f(b_k), the smoother of the paper, whose error falls like 1/n² for smooth f. "interpolating":
    v solves A v = f(b), A the attention of the control points to each other: f̂ then meets f at each of them.
    Raises InputError if the function is not finite there, UnknownNameError for other ``values``.
    """
    if values not in VALUES:
        raise UnknownNameError("choice of values", values, VALUES)
    theta = angles(prefix_length)
    low, high = _checked(interval)
    wanted = np.asarray(function((low + high + (high - low) * np.cos(theta)) / 2), dtype=np.float64)
    if wanted.shape != theta.shape or not np.isfinite(wanted).all():
        raise InputError(f"the function must take an array of numbers in [{low}, {high}] to as many finite numbers.")
    if values == "interpolating":
        gaps = np.cos(theta[:, None] - theta[None]) - 1
        kernel = np.exp(concentration(prefix_length) * gaps)
        wanted = np.linalg.solve(kernel / kernel.sum(axis=1, keepdims=True), wanted)
    vectors = np.zeros((prefix_length, STREAM.size))
    vectors[:, STREAM.slice("point")] = on_circle(theta)
    vectors[:, STREAM.slice("value").start] = wanted
    return vectors


def _checked(interval: tuple[float, float]) -> tuple[float, float]:
    """The interval; raises InputError unless a < b are finite."""
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"an interval needs finite ends a < b, got {interval}.")
    return low, high


@torch.no_grad()
def respond(head: AttentionHead, vectors: Numbers, tokens: Numbers) -> Numbers:
    """The head's output at each content token, each alone after the prefix: (points,)."""
    dtype = head.query.weight.dtype
    batch = np.concatenate([np.broadcast_to(vectors, (len(tokens), *vectors.shape)), tokens[:, None]], axis=1)
    outputs, _ = head(torch.from_numpy(batch).to(dtype))
    return np.asarray(outputs[:, -1, 0].double().numpy())


def approximate(
    function: Function,
    prefix_lengths: Sequence[int] = (4, 8, 16, 32, 64, 128),
    *,
    interval: tuple[float, float] = (0.0, 1.0),
    values: Literal["sampled", "interpolating"] = "sampled",
    tested: int = 401,
    dtype: torch.dtype = torch.float64,
) -> Approximation:
    """Runs the head with a prefix of each length at ``tested`` evenly spaced points of the interval.

    Raises InputError for lengths below 2 or a bad interval.

    >>> result = approximate(np.exp, (8, 16, 32))
    >>> [round(point.max_error, 4) for point in result.points]
    [0.4091, 0.1034, 0.0261]
    """
    if not prefix_lengths:
        raise InputError("approximate needs at least one prefix length.")
    if tested < 1:
        raise InputError(f"the error is taken over at least 1 point, got tested={tested}.")
    low, high = _checked(interval)
    inputs = np.linspace(low, high, tested)
    wanted, tokens = np.asarray(function(inputs), dtype=np.float64), content_token(inputs, interval)
    points = []
    for length in prefix_lengths:
        given = respond(build(length, dtype=dtype), prefix(function, length, interval, values), tokens)
        errors = np.abs(given - wanted)
        points.append(
            ApproximationPoint(
                prefix_length=length,
                concentration=concentration(length),
                max_error=float(errors.max()),
                rms_error=float(np.sqrt((errors**2).mean())),
                tested=tested,
                values=values,
                dtype=dtype_name(dtype),
            )
        )
    return Approximation(
        points=tuple(points),
        interval=interval,
        inputs=tuple(inputs.tolist()),
        wanted=tuple(wanted.tolist()),
        given=tuple(given.tolist()),
        order=_order(points),
    )


def _order(points: Sequence[ApproximationPoint]) -> float:
    """−slope of log(max error) against log(prefix length)."""
    if len(points) < 2 or any(point.max_error == 0 for point in points):
        return math.nan
    lengths = np.log([point.prefix_length for point in points])
    errors = np.log([point.max_error for point in points])
    return float(-np.polyfit(lengths, errors, 1)[0])
