"""Nash-MTL: the bargaining equation, its invariances, and how long the weights are kept."""

import pytest
import torch
from hypothesis import given
from torch import Tensor

from mtrl.aggregators import make, nash
from tests.aggregators.jacobians import FULL_RANK, gaussian
from tests.aggregators.strategies import few, jacobians
from tests.aggregators.weights import weights_of


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_orthogonal_gradients_count_by_their_inverse_length():
    # a_i n_i^2 = 1 / a_i: a = (1/2, 1/5), d = (1, 1), of length sqrt 2; clipped to 1: (1, 1) / sqrt 2.
    jacobian = rows([2.0, 0.0], [0.0, 5.0])
    assert torch.allclose(weights_of(make("nash", max_norm=None), jacobian), rows([0.5, 0.2])[0], rtol=1e-9)
    assert torch.allclose(make("nash")(jacobian), rows([0.5**0.5, 0.5**0.5])[0], rtol=1e-9)


def test_two_gradients_at_an_angle_share_the_bisector():
    # u1 = (1, 0), u2 = (3/5, 4/5): by symmetry y = (y, y), y (1 + 3/5) = 1 / y, y^2 = 5/8. d = y (8/5, 4/5).
    direction = make("nash", max_norm=None)(rows([7.0, 0.0], [0.06, 0.08]))
    assert torch.allclose(direction, 0.625**0.5 * rows([1.6, 0.8])[0], rtol=1e-9)


@few
@given(jacobian=jacobians(may_depend=False))
def test_weights_solve_the_bargaining_equation(jacobian):
    # a_i (J d)_i = 1 for every task that has a gradient, hence ||d||^2 = their number; y = a n avoids the scales.
    norms = jacobian.norm(dim=1)
    is_nonzero = norms > 0
    weights = weights_of(make("nash", max_norm=None), jacobian)
    direction = weights @ jacobian
    assert (weights[~is_nonzero] == 0).all()
    assert (weights[is_nonzero] * (jacobian[is_nonzero] @ direction) - 1).abs().max() <= 1e-6
    assert direction.norm() == pytest.approx(float(is_nonzero.sum()) ** 0.5, rel=1e-6)


@few
@given(jacobian=jacobians(may_depend=False, decades=(0,)))
def test_scaling_single_gradients_does_not_change_the_direction(jacobian):
    scales = torch.logspace(-6, 6, len(jacobian), dtype=torch.float64)[:, None]
    assert torch.allclose(make("nash")(scales * jacobian), make("nash")(jacobian), rtol=1e-6, atol=1e-8)


@few
@given(jacobian=jacobians())
def test_direction_is_never_longer_than_asked_for(jacobian):
    assert make("nash", max_norm=0.5)(jacobian).norm() <= 0.5 * (1 + 1e-6)


def test_weights_are_kept_for_as_many_updates_as_asked_for():
    aggregator = make("nash", update_every=3, max_norm=None)
    found = [weights_of(aggregator, gaussian(3, 8, seed)) for seed in range(7)]
    solved = [weights_of(make("nash", max_norm=None), gaussian(3, 8, seed)) for seed in range(7)]
    for step, weights in enumerate(found):
        assert torch.equal(weights, solved[step - step % 3])


def test_kept_weights_cost_no_solution(monkeypatch):
    solved = []
    solve = nash.fair_weights
    monkeypatch.setattr(nash, "fair_weights", lambda *args, **options: solved.append(1) or solve(*args, **options))
    aggregator = make("nash", update_every=3)
    for seed in range(7):
        aggregator(gaussian(3, 8, seed))
    assert len(solved) == 3


def test_kept_weights_are_clipped_to_the_present_gradients():
    aggregator = make("nash", update_every=2)
    jacobian = FULL_RANK["five similar"]
    aggregator(jacobian)
    assert aggregator(100 * jacobian).norm() == pytest.approx(1, rel=1e-9)


def test_counter_and_weights_continue_in_a_fresh_object():
    used, fresh = make("nash", update_every=3), make("nash", update_every=3)
    for seed in range(2):
        used(gaussian(3, 8, seed))
    fresh.setup(3, [torch.Size([8])], torch.device("cpu"))
    fresh.load_state_dict(used.state_dict())
    for seed in range(2, 5):
        assert torch.equal(used(gaussian(3, 8, seed)), fresh(gaussian(3, 8, seed)))


@pytest.mark.parametrize("options", [{"update_every": 0}, {"max_norm": 0.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make("nash", **options)
