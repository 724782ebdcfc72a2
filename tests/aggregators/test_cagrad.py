"""CAGrad: values by hand, a certificate of optimality, and the ball."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import cagrad, make
from mtrl.aggregators.cagrad import exact_weights
from mtrl.aggregators.system import gramian
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK
from tests.aggregators.strategies import few, jacobians


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_worst_task_gets_the_whole_ball():
    # g1 = (1, 0), g2 = (-1, 1): g_0 = (0, 1/2), radius c / 2 = 0.2. <g1, d> is the smaller one for radii below 1/4, so
    # d = g_0 + 0.2 g1 = (0.2, 0.5), with <g1, d> = 0.2 and <g2, d> = 0.3.
    direction = make("cagrad", c=0.4, rescale="none")(rows([1.0, 0.0], [-1.0, 1.0]))
    assert torch.allclose(direction, rows([0.2, 0.5])[0], atol=1e-9)


@pytest.mark.parametrize(("rescale", "divisor"), [("none", 1.0), ("linear", 1.5), ("square", 1.25)])
def test_symmetric_gradients_keep_their_mean(rescale, divisor):
    # g1 = (1, 0), g2 = (0, 1): w = (1/2, 1/2), g_w = g_0, d = (1 + c) g_0 = 1.5 (1/2, 1/2).
    direction = make("cagrad", c=0.5, rescale=rescale)(rows([1.0, 0.0], [0.0, 1.0]))
    assert torch.allclose(direction, rows([0.75, 0.75])[0] / divisor, atol=1e-9)


@pytest.mark.parametrize("case", FULL_RANK)
def test_without_radius_it_is_the_mean(case):
    jacobian = FULL_RANK[case]
    assert torch.allclose(make("cagrad", c=0.0)(jacobian), jacobian.mean(0), rtol=1e-12)


@few
@given(
    jacobian=jacobians(sizes=(1, 2, 3, 10, 50), decades=(0, 1), may_vanish=False), c=st.sampled_from([0.1, 0.5, 0.9])
)
def test_no_direction_in_the_ball_is_better_for_the_worst_task(jacobian, c):
    # Strong duality: for any w in the simplex, min_i <g_i, d> <= <g_w, g_0> + c ||g_0|| ||g_w|| in the ball, so
    # equality proves both. w is read off the weights, which are 1/T + (step along g_w).
    num_tasks = len(jacobian)
    mean = jacobian.mean(0)
    weights = exact_weights(gramian((jacobian,)), c)
    step = (weights - 1 / num_tasks).clamp(min=0)
    hull = step @ jacobian / step.sum()
    direction = weights @ jacobian
    bound = hull @ mean + c * mean.norm() * hull.norm()
    assert (direction - mean).norm() <= c * mean.norm() * (1 + 1e-9)
    assert (jacobian @ direction).min() >= bound - 1e-6 * mean.norm() * jacobian.norm(dim=1).max()


@pytest.mark.parametrize("case", FULL_RANK)
def test_direction_lies_on_the_edge_of_the_ball(case):
    jacobian = FULL_RANK[case]
    mean = jacobian.mean(0)
    found = (make("cagrad", c=0.5, rescale="none")(jacobian) - mean).norm()
    assert torch.isclose(found, 0.5 * mean.norm(), rtol=1e-9)


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("case", FULL_RANK)
def test_guessed_steps_are_those_of_newtons_method(monkeypatch, case, c):
    products = gramian((FULL_RANK[case],))
    guessed = exact_weights(products, c)
    monkeypatch.setattr(cagrad, "ball_step", cagrad.newton_ball_step)
    expected = exact_weights(products, c)
    assert ((guessed - expected) @ FULL_RANK[case]).norm() <= 1e-8 * FULL_RANK[case].mean(0).norm()


@pytest.mark.parametrize("case", ["opposite rows", "sum is zero"])
def test_gradients_whose_mean_is_zero_give_nothing(case):
    assert make("cagrad")(DEGENERATE[case]).norm() <= 1e-9


def test_twelve_decades_help_the_shortest_gradient():
    # The long gradient makes the mean; the ball is large against the short one, which c = 0.9 turns to agreement.
    jacobian = rows([1e6, 0.0], [-1e-6, 1e-6])
    direction = make("cagrad", c=0.9)(jacobian)
    assert (jacobian @ direction > 0).all()


@pytest.mark.parametrize("c", [-0.1, float("inf"), float("nan")])
def test_impossible_radius_is_refused(c):
    with pytest.raises(ValueError, match="c must be"):
        make("cagrad", c=c)


def test_official_steps_leave_out_no_zero_gradient():
    # What `sgd` is for is to repeat: a zero row draws the mean to zero, as in the official code.
    jacobian = rows([1.0, 0.0], [0.0, 0.0])
    assert make("cagrad", solver="sgd")(jacobian)[0] < make("cagrad")(jacobian)[0]
