import math

import numpy as np
import pytest
from scipy import stats

from mtrl.statistics import mean_interval, wilson


def test_wilson_equals_a_value_worked_out_by_hand():
    # z^2 = 3.841459; 8 of 10: center = (0.8 + 0.192073) / 1.384146 = 0.716740
    # half = 1.959964 / 1.384146 * sqrt(0.8 * 0.2 / 10 + 3.841459 / 400) = 1.416009 * sqrt(0.025603647) = 0.226576
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=3e-6)


def test_wilson_equals_an_independent_implementation():
    for trials in (1, 2, 7, 50, 2500):
        for successes in {0, 1, trials // 3, trials - 1, trials}:
            expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
            assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_all_and_none_still_have_a_width_and_end_exactly_at_the_border():
    # 0 of 50: high = (z^2 / n) / (1 + z^2 / n) = 0.0768292 / 1.0768292 = 0.0713476
    none, everything = wilson(0, 50), wilson(50, 50)
    assert none.low == 0
    assert none.high == pytest.approx(0.0713476, abs=1e-7)
    assert everything.high == 1
    assert everything.low == pytest.approx(1 - none.high, abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match=f"{successes}, {trials}"):
        wilson(successes, trials)


def test_interval_of_a_mean_equals_a_value_worked_out_by_hand():
    # 0.2, 0.4, 0.6: mean 0.4, deviation 0.2, t(2) = 4.3027, half = 4.3027 * 0.2 / sqrt(3) = 0.496833
    assert mean_interval([0.2, 0.4, 0.6]) == pytest.approx((-0.096833, 0.896833), abs=1e-5)


@pytest.mark.parametrize("count", range(2, 33))
def test_interval_of_a_mean_equals_an_independent_implementation(count):
    values = np.random.default_rng(count).normal(size=count)
    expected = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values.tolist()) == pytest.approx(expected, abs=1e-3 if count > 31 else 1e-4)


def test_a_single_value_says_nothing_about_the_spread():
    assert mean_interval([0.5]) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="empty"):
        mean_interval([])
