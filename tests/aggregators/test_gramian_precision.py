"""What the Gramian in float64 is for (scripts/gramian_precision.py)."""

import pytest

from mtrl.aggregators import make, names
from scripts.gramian_precision import errors, table, with_condition_number


def test_a_float32_gramian_loses_the_aligned_direction_and_ours_keeps_it():
    # As many parameters as a small network. Rounding is 6e-8 a sum; the condition number squared is 1e6.
    plain, ours = errors("aligned", with_condition_number(10, 345_000, 1e3, seed=0))
    assert plain > 0.1
    assert ours < 1e-4


@pytest.mark.parametrize("method", [name for name in names() if make(name).need.has_gramian])
def test_no_method_loses_its_direction(method):
    # The combination in float32 rounds by 6e-8 of the longest row, a thousand times the shortest direction.
    assert errors(method, with_condition_number(10, 2_000, 1e3, seed=0))[1] < 1e-4


def test_the_table_has_median_and_worst():
    lines = table({"mean": {10.0: [(1e-3, 1e-6), (2e-3, 3e-6), (9e-3, 2e-6)]}}, "3 tasks")
    assert lines[-1] == "| mean | 2e-03 (9e-03) | 2e-06 (3e-06) |"
