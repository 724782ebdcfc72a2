"""ConFIG: equal angles with all gradients, as long as the projections together."""

import pytest
import torch
from hypothesis import given

from mtrl.aggregators import make
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK
from tests.aggregators.strategies import few, jacobians


def test_two_orthogonal_gradients_by_hand():
    # x along (1, 1), x^ = (1, 1) / sqrt 2: <g1, x^> + <g2, x^> = (2 + 4) / sqrt 2, d = 6 / 2 (1, 1) = (3, 3).
    jacobian = torch.tensor([[2.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    assert torch.allclose(make("config")(jacobian), torch.tensor([3.0, 3.0]).double(), rtol=1e-12)


@few
@given(jacobian=jacobians(may_depend=False))
def test_cosines_are_equal_and_length_is_the_sum_of_projections(jacobian):
    norms = jacobian.norm(dim=1)
    jacobian, norms = jacobian[norms > 0], norms[norms > 0]
    direction = make("config")(jacobian)
    unit = direction / direction.norm()
    found = (jacobian / norms[:, None]) @ unit
    assert found.min() > 0
    assert (found - found.mean()).abs().max() <= 1e-9
    assert torch.isclose(direction.norm(), (jacobian @ unit).sum(), rtol=1e-9)


@pytest.mark.parametrize("case", FULL_RANK)
def test_cosines_are_in_the_ratio_of_the_weights(case):
    jacobian = FULL_RANK[case]
    weights = torch.linspace(1.0, 2.0, len(jacobian), dtype=torch.float64)
    direction = make("config", weights=tuple(weights.tolist()))(jacobian)
    found = (jacobian / jacobian.norm(dim=1, keepdim=True)) @ direction
    assert torch.allclose(found / found[0], weights / weights[0], rtol=1e-7)


@pytest.mark.parametrize("case", ["opposite rows", "all zero"])
def test_gradients_without_a_common_side_give_nothing(case):
    assert torch.equal(make("config")(DEGENERATE[case]), torch.zeros(DEGENERATE[case].shape[1]).double())
