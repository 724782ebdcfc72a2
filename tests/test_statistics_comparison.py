"""Comparison of methods over tasks and runs, against the reference implementation and independent ones.

What is `RLIABLE` below was computed once by rliable 1.2.0 (google-research/rliable, with arch 7.2.0 and scipy 1.17.1)
from X and Y by runs and tasks, percentile method, 50,000 draws (20,000 for pairs and profiles), numpy.random.seed(0).
"""

import numpy as np
import pytest
from scipy import stats

from mtrl.statistics import (
    interquartile_mean,
    mean,
    performance_profile,
    probability_of_improvement,
    run_bootstrap,
    stratified_bootstrap,
)

# By run and task, as rliable has it.
X = [[0.1, 0.9, 0.4], [0.3, 1.0, 0.2], [0.2, 0.7, 0.5], [0.5, 0.8, 0.4], [0.0, 1.0, 0.9], [0.6, 0.6, 0.1]]
Y = [[0.2, 0.5, 0.4], [0.1, 0.9, 0.3], [0.4, 0.6, 0.1], [0.3, 0.9, 0.0], [0.1, 0.8, 0.6]]
THRESHOLDS = np.array([0, 0.25, 0.5, 0.75, 0.9])
RLIABLE = {
    "iqm": (0.5, 0.37777778),
    "iqm_x_interval": (0.38, 0.64),
    "iqm_y_interval": (0.27777778, 0.48888889),
    "mean_x_interval": (0.41666667, 0.61111111),
    "improvement": 0.6277777777777778,
    "improvement_interval": (0.42777778, 0.81111111),
    "profile": (0.94444444, 0.72222222, 0.44444444, 0.27777778, 0.11111111),
    "profile_low": (0.83333333, 0.55555556, 0.33333333, 0.11111111, 0.0),
    "profile_high": (1.0, 0.88888889, 0.61111111, 0.44444444, 0.22222222),
}

DRAWS = 4000
ENDS = 0.015
"""How far ends may lie apart: 50,000 and 4,000 draws of numbers on a grid of 0.1 / 18."""


@pytest.fixture(scope="module")
def x():
    return np.array(X).T


@pytest.fixture(scope="module")
def y():
    return np.array(Y).T


def test_values_published_with_the_reference_implementation():
    # tests/rliable/metrics_test.py of google-research/rliable, by run and task
    x = np.array([[1.0, 2], [2, 2], [1, 1], [2, 1]]).T
    y = np.array([[1.0, 1], [2, 2], [3, 3]]).T
    assert (mean(x), interquartile_mean(x), mean(y), interquartile_mean(y)) == (1.5, 1.5, 2, 2)
    assert probability_of_improvement(x, y) == pytest.approx(1 / 3)


def test_equals_the_reference_implementation(x, y):
    assert (interquartile_mean(x), interquartile_mean(y)) == pytest.approx(RLIABLE["iqm"])
    assert probability_of_improvement(x, y) == pytest.approx(RLIABLE["improvement"])
    assert performance_profile(x, THRESHOLDS) == pytest.approx(RLIABLE["profile"])


def test_intervals_equal_the_reference_implementation(x, y):
    found = {
        "iqm_x_interval": stratified_bootstrap(interquartile_mean, x, resamples=DRAWS),
        "iqm_y_interval": stratified_bootstrap(interquartile_mean, y, resamples=DRAWS),
        "mean_x_interval": stratified_bootstrap(mean, x, resamples=DRAWS),
        "improvement_interval": stratified_bootstrap(probability_of_improvement, x, y, resamples=DRAWS),
    }
    for name, interval in found.items():
        assert interval == pytest.approx(RLIABLE[name], abs=ENDS), name


def test_the_band_of_a_profile_equals_the_reference_implementation(x):
    band = stratified_bootstrap(lambda scores: performance_profile(scores, THRESHOLDS), x, resamples=DRAWS)
    assert band.low == pytest.approx(RLIABLE["profile_low"], abs=ENDS)
    assert band.high == pytest.approx(RLIABLE["profile_high"], abs=ENDS)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 5), (3, 7), (10, 30)])
def test_interquartile_mean_is_scipys_trimmed_mean(shape):
    scores = np.random.default_rng(0).normal(size=shape)
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores.ravel(), 0.25))


def test_probability_of_improvement_is_the_mann_whitney_statistic():
    generator = np.random.default_rng(0)
    x, y = generator.integers(4, size=(5, 7)) / 4, generator.integers(4, size=(5, 4)) / 4
    expected = [stats.mannwhitneyu(a, b).statistic / (7 * 4) for a, b in zip(x, y, strict=True)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(expected))
    assert probability_of_improvement(y, x) == pytest.approx(1 - np.mean(expected))


def test_interval_of_a_mean_of_one_task_equals_an_independent_bootstrap():
    scores = np.random.default_rng(1).random((1, 12))
    result = stats.bootstrap(
        (scores[0],), np.mean, method="percentile", n_resamples=DRAWS, rng=np.random.default_rng(2)
    )
    expected = (result.confidence_interval.low, result.confidence_interval.high)
    for bootstrap in (stratified_bootstrap, run_bootstrap):  # of one task, the same
        assert bootstrap(mean, scores, resamples=DRAWS) == pytest.approx(expected, abs=ENDS)


def test_tasks_that_fail_together_hide_the_spread_of_runs_from_strata():
    # Ten tasks, four runs: two solve all of them, two none. Runs whole: the mean of four coins, 95% from 0 to 1.
    # Task by task: the mean of forty coins, 0.5 +- 1.96 * sqrt(0.25 / 40) = 0.5 +- 0.155.
    scores = np.tile([0.0, 0.0, 1.0, 1.0], (10, 1))
    assert run_bootstrap(mean, scores) == pytest.approx((0, 1))
    assert stratified_bootstrap(mean, scores) == pytest.approx((0.345, 0.655), abs=0.03)


def test_further_axes_are_intervals_of_their_own():
    scores = np.random.default_rng(3).random((3, 5, 4))
    for bootstrap in (stratified_bootstrap, run_bootstrap):
        band = bootstrap(interquartile_mean, scores, resamples=100)
        assert band.low.shape == band.high.shape == (4,)
        for step in range(4):
            one = bootstrap(interquartile_mean, scores[:, :, step], resamples=100)
            assert (float(band.low[step]), float(band.high[step])) == pytest.approx(tuple(map(float, one)))


def test_a_single_run_has_no_interval(x):
    for bootstrap in (stratified_bootstrap, run_bootstrap):
        assert np.isnan(bootstrap(mean, x[:, :1])).all()
        assert np.isnan(bootstrap(probability_of_improvement, x, x[:, :1])).all()
