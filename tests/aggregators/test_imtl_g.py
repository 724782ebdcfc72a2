"""IMTL-G: equal projections onto all gradients."""

import pytest
import torch
from hypothesis import given

from mtrl.aggregators import make
from tests.aggregators.jacobians import DEGENERATE
from tests.aggregators.strategies import few, jacobians
from tests.aggregators.weights import weights_of


def test_two_orthogonal_gradients_by_hand():
    # a_1 (2, 0) + a_2 (0, 1) with 2 a_1 = a_2 and a_1 + a_2 = 1: a = (1/3, 2/3), d = (2/3, 2/3).
    jacobian = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(make("imtl_g")(jacobian), torch.tensor([2 / 3, 2 / 3], dtype=torch.float64), rtol=1e-12)


@few
@given(jacobian=jacobians(may_depend=False))
def test_projections_are_equal_and_weights_sum_to_one(jacobian):
    norms = jacobian.norm(dim=1)
    is_nonzero = norms > 0
    weights = weights_of(make("imtl_g"), jacobian)
    projections = (jacobian[is_nonzero] / norms[is_nonzero, None]) @ (weights @ jacobian)
    assert weights.sum() == pytest.approx(1, rel=1e-9)
    assert (weights[~is_nonzero] == 0).all()
    assert (projections - projections.mean()).abs().max() <= 1e-9 * projections.abs().max()


def test_duplicated_rows_share_one_weight():
    jacobian = DEGENERATE["duplicated rows"]
    expected = make("imtl_g")(jacobian[[0, 1, 3]])
    assert (make("imtl_g")(jacobian) - expected).norm() <= 1e-9 * expected.norm()


def test_opposite_rows_have_no_such_direction():
    assert torch.equal(make("imtl_g")(DEGENERATE["opposite rows"]), torch.zeros(3).double())
