"""How far a rate or a mean of few numbers may be from the truth, and how methods compare over tasks and runs."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

CONFIDENCE = 0.95
"""Of every interval here."""

RESAMPLES = 2000
"""Draws of a bootstrap: its ends then move by about a fiftieth of its width from one set of draws to another."""

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


# ------------------------------------------------------------------------------------------- several tasks and runs


class Band(NamedTuple):
    """The two ends of many intervals at once, or of one as arrays without axes."""

    low: np.ndarray
    high: np.ndarray


def mean(scores: Float[np.ndarray, "task run *rest"]) -> Float[np.ndarray, "*rest"]:
    """Return the mean over tasks and runs."""
    return np.asarray(scores.mean((0, 1)))


def interquartile_mean(scores: Float[np.ndarray, "task run *rest"]) -> Float[np.ndarray, "*rest"]:
    """Return the mean of the middle half of all scores, tasks and runs together: of n, n/4 rounded down go at each end.

    Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", 2021, section 4.3.
    """
    ordered = np.sort(scores.reshape(-1, *scores.shape[2:]), axis=0)
    cut = len(ordered) // 4
    return np.asarray(ordered[cut : len(ordered) - cut].mean(0))


def probability_of_improvement(
    x: Float[np.ndarray, "task run_x"], y: Float[np.ndarray, "task run_y"]
) -> Float[np.ndarray, ""]:
    """Return how often a run of X is better than one of Y on a task that is drawn at random; ties count half.

    Source: Agarwal et al. 2021, section 4.3: the Mann-Whitney U statistic as a share of all pairs, mean over tasks.
    """
    difference = x[:, :, None] - y[:, None, :]
    return np.asarray(np.mean((difference > 0) + 0.5 * (difference == 0)))


def performance_profile(
    scores: Float[np.ndarray, "task run"], thresholds: Float[np.ndarray, " threshold"]
) -> Float[np.ndarray, " threshold"]:
    """Return the share of scores, of all tasks and runs, above each threshold.

    Source: Agarwal et al. 2021, section 4.2, equation 1: the run-score distribution.
    """
    return (scores[..., None] > thresholds).mean((0, 1))


def stratified_bootstrap(
    statistic: Callable[..., np.ndarray],
    *scores: Float[np.ndarray, "task _ *rest"],
    resamples: int = RESAMPLES,
) -> Band:
    """Return the 95% percentile interval of a statistic, its runs drawn with replacement for each task apart.

    Source: Agarwal et al. 2021, section 4.1. Tasks are strata: every draw has all of them. It takes what one run
    reaches on two tasks for independent; where one policy serves all tasks, `run_bootstrap` does not.

    Args:
        statistic: Of one array of scores for each given, as `interquartile_mean` and `probability_of_improvement`.
        scores: Of one method each, by task and run; methods are drawn independently, further axes together.
        resamples: Number of draws. They are the same every time.

    Returns:
        Both ends; NaN where a method has a single run, whose draws would all be equal.
    """

    def draw(generator: np.random.Generator, one: np.ndarray) -> np.ndarray:
        return one[np.arange(len(one))[:, None], generator.integers(one.shape[1], size=one.shape[:2])]

    return _bootstrap(statistic, scores, draw, resamples)


def run_bootstrap(
    statistic: Callable[..., np.ndarray],
    *scores: Float[np.ndarray, "task _ *rest"],
    resamples: int = RESAMPLES,
) -> Band:
    """Return the same with whole runs drawn: what one policy reaches on its tasks stays together.

    Runs are what is independent in multi-task training. This interval is the wider one where tasks succeed and fail
    together, and the narrower one where they do so at each other's cost.
    """

    def draw(generator: np.random.Generator, one: np.ndarray) -> np.ndarray:
        return one[:, generator.integers(one.shape[1], size=one.shape[1])]

    return _bootstrap(statistic, scores, draw, resamples)


def _bootstrap(
    statistic: Callable[..., np.ndarray],
    scores: Sequence[np.ndarray],
    draw: Callable[[np.random.Generator, np.ndarray], np.ndarray],
    resamples: int,
) -> Band:
    if any(one.shape[1] < 2 for one in scores):
        unknown = np.full_like(statistic(*scores), np.nan)
        return Band(unknown, unknown)
    generator = np.random.default_rng(0)
    found = [statistic(*[draw(generator, one) for one in scores]) for _ in range(resamples)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail], axis=0)
    return Band(np.asarray(low), np.asarray(high))
