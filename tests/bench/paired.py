# SPDX-License-Identifier: Apache-2.0
"""
Paired comparisons that say whether a bound is met, missed, or the machine too noisy.

What is compared takes turns, so noise and drift of the machine hit all of a round alike.
Only differences and ratios within a round count. The interval of their median comes
from their ranks (the sign test), so it needs no assumption about the noise, and holds
for spikes, too. More than two kinds are compared in pairs, and each pair has a share
of the error (Bonferroni).
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ERROR = 0.05
"""The chance that the true value is outside of an interval."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A median, and where the true one is."""

    median: float
    low: float
    high: float


def estimate(values: Sequence[float], *, error: float = ERROR) -> Estimate:
    """Return the median of independent values, with its interval by ranks."""
    ordered, count = sorted(values), len(values)
    # The k-th smallest and k-th largest enclose the median, but with the chance that
    # fewer than k of the values are on one side of it.
    outside, cut = 0.0, 0
    for below in range(count):
        outside += math.comb(count, below) / 2 ** (count - 1)
        if outside > error:
            break
        cut = below + 1
    low, high = (
        (ordered[cut - 1], ordered[count - cut]) if cut else (-math.inf, math.inf)
    )
    return Estimate(median=statistics.median(ordered), low=low, high=high)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Return the ratio of what was measured in the same rounds."""
    return estimate([n / d for n, d in zip(numerators, denominators, strict=True)])


def spread(rounds: Mapping[str, Sequence[float]], *, error: float = ERROR) -> Estimate:
    """
    Return the largest difference between two kinds, each measured once in each round.

    *low* is more than a bound only if one pair certainly differs by more, and *high* is
    less only if certainly no pair does.
    """
    pairs = list(itertools.combinations(rounds, 2))
    estimates = [
        estimate(
            [a - b for a, b in zip(rounds[one], rounds[other], strict=True)],
            error=error / len(pairs),
        )
        for one, other in pairs
    ]
    return Estimate(
        median=max(abs(each.median) for each in estimates),
        low=max(max(0.0, each.low, -each.high) for each in estimates),
        high=max(max(-each.low, each.high) for each in estimates),
    )


def worst(estimates: Sequence[Estimate]) -> Estimate:
    """Return the largest of several spreads."""
    return Estimate(
        median=max(each.median for each in estimates),
        low=max(each.low for each in estimates),
        high=max(each.high for each in estimates),
    )
