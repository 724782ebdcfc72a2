"""Intervals: how far a rate or a mean of few numbers may be from the truth."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
"""Of every interval here."""

_NORMAL_QUANTILE = 1.959963984540054
"""0.975 quantile of the standard normal distribution."""

# fmt: off
_T_QUANTILES = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)
# fmt: on
"""0.975 quantiles of Student's t for 1 to 30 degrees of freedom; the last serves for more, and is a little wide."""


class Interval(NamedTuple):
    """The two ends."""

    low: float
    high: float


def wilson(successes: float | int, trials: int) -> Interval:
    """Return the 95% interval of a success rate; it has a width also where all or none succeeded.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927; without correction
    for continuity.

    Args:
        successes: Their number; a fraction where trials are themselves means of several episodes.
        trials: Number of independent trials.

    Raises:
        ValueError: There are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"successes must lie between 0 and the trials, of which one is needed: {successes}, {trials}")
    z, n, p = _NORMAL_QUANTILE, trials, successes / trials
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # Exact at the ends, where rounding would leave 1e-17 or 1 - 1e-16.
    return Interval(0.0 if successes == 0 else center - half, 1.0 if successes == trials else center + half)


def mean_interval(values: Sequence[float]) -> Interval:
    """Return Student's 95% interval of the mean of independent values; infinite for a single one.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("values is empty, expected one or more")
    if len(values) == 1:
        return Interval(-math.inf, math.inf)
    degrees = min(len(values) - 1, len(_T_QUANTILES))
    half = _T_QUANTILES[degrees - 1] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return Interval(mean - half, mean + half)
