"""MGDA: values by hand and what the shortest vector of the hull guarantees."""

import pytest
import torch
from hypothesis import given
from torch import Tensor

from mtrl.aggregators import make
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK
from tests.aggregators.strategies import few, jacobians


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_two_orthogonal_gradients():
    # w_1 = (G22 - G12) / (G11 + G22 - 2 G12) = 1 / (4 + 1) = 1/5: d = 1/5 (2, 0) + 4/5 (0, 1) = (2/5, 4/5).
    assert torch.allclose(make("mgda")(rows([2.0, 0.0], [0.0, 1.0])), rows([0.4, 0.8])[0], atol=1e-13)


def test_gradient_that_is_short_and_agrees_is_taken_alone():
    # w_1 = (G22 - G12) / (G11 + G22 - 2 G12) = (1/2 - 2) / ... < 0, clipped to 0: d = g2.
    assert torch.allclose(make("mgda")(rows([3.0, 1.0], [0.5, 0.5])), rows([0.5, 0.5])[0], atol=1e-13)


@pytest.mark.parametrize("case", ["opposite rows", "sum is zero", "more tasks than parameters"])
def test_gradients_that_cancel_give_nothing(case):
    assert make("mgda")(DEGENERATE[case]).norm() <= 1e-12


@few
@given(jacobian=jacobians())
def test_direction_agrees_with_every_task_by_at_least_its_square(jacobian):
    # <u_i, d> >= ||d||^2 / n_i, in units of the shortest gradient.
    norms = jacobian.norm(dim=1)
    jacobian, norms = jacobian[norms > 0], norms[norms > 0]
    direction = make("mgda")(jacobian) / norms.min()
    bound = direction.square().sum() * norms.min() / norms
    assert ((jacobian / norms[:, None]) @ direction - bound).min() >= -1e-9
    assert direction.norm() <= 1 + 1e-12


@pytest.mark.parametrize("case", FULL_RANK)
def test_doubled_task_changes_nothing(case):
    jacobian = FULL_RANK[case]
    expected = make("mgda")(jacobian)
    assert (make("mgda")(torch.cat([jacobian, jacobian[:1]])) - expected).norm() <= 1e-9 * expected.norm()
