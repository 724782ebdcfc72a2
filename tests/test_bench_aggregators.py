"""The benchmark of the aggregators times every method, and judges by the right numbers."""

import pytest

from mtrl.aggregators import names
from mtrl.aggregators.base import Need
from scripts import bench_aggregators
from scripts.bench_aggregators import Measured, Times, measure, summary, table


def measured(**changes) -> Measured:
    """Return times in which the Gramian takes 2 s, and weights and combination 3 s and 1 s."""
    methods = {
        "by losses": Times(Need.LOSSES, 3.0, 1.0, None, None),
        "by gramian": Times(Need.GRAMIAN, 3.0, 1.0, 5.0, 4.0),
        "by rows": Times(Need.ROWS, 3.0, 0.0, None, None),
    }
    one = Measured(
        num_tasks=10,
        size="0.35M",
        num_params=350_000,
        per_task=24.0,
        gramian=2.0,
        plain_gramian=0.5,
        conversion=0.1,
        peak=1.15,
        methods=methods,
    )
    return one._replace(**changes)


def test_only_methods_that_see_a_gramian_pay_for_it():
    one = measured()
    assert [one.total(method) for method in one.methods] == [4.0, 6.0, 3.0]


def test_targets_are_judged():
    # The dearest takes 6 of 24 s, 25% where 30% are allowed, and 6/5 of torchjd's 5 s.
    share, torchjd, peak, price = summary([measured()])
    assert "met, at most 25.0% (by gramian)" in share
    assert "**missed**, 0 of 1; slower: by gramian 1.20 times" in torchjd
    assert "met, 1.15 (Jacobian and direction alone: 1.10)" in peak
    assert "4.0 times a float32 one, 6.2% of the task gradients more" in price
    share, _, peak, _ = summary([measured(per_task=12.0, peak=1.3)])
    assert "**missed**, at most 50.0%" in share
    assert "**missed**, 1.30" in peak


def test_two_tasks_have_no_target_of_memory():
    # Their direction alone is half a Jacobian.
    assert not any("memory" in line for line in summary([measured(num_tasks=2)]))


@pytest.mark.filterwarnings("ignore")  # of torchjd and what it calls
def test_every_method_is_timed(monkeypatch):
    monkeypatch.setitem(bench_aggregators.SIZES, "tiny", 4)
    monkeypatch.setattr(bench_aggregators, "peak", lambda num_tasks, shapes: None)
    one = measure(2, "tiny", list(names()), rounds=1)
    assert tuple(one.methods) == names()
    assert one.num_params == 2 * ((39 + 4 + 2) * 4 + 4 + 4 * 4 + 4 + 4 * 4 + 4 + 4 + 1)
    assert all(one.total(method) > 0 for method in names())
    assert one.methods["mean"].torchjd is not None
    assert one.methods["dibs"].torchjd is None
    assert len(table(one)) == 8 + len(names())
