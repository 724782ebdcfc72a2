"""The weighted mean of the task gradients."""

import torch

from mtrl.aggregators import make
from mtrl.aggregators.base import Need
from tests.aggregators.jacobians import gaussian


def test_default_is_the_plain_mean():
    # ((1, 2) + (3, -4) + (5, 8)) / 3 = (3, 2).
    jacobian = torch.tensor([[1.0, 2.0], [3.0, -4.0], [5.0, 8.0]], dtype=torch.float64)
    assert torch.allclose(make("mean")(jacobian), torch.tensor([3.0, 2.0]).double(), rtol=1e-15)


def test_weights_are_used_as_given():
    # 2 (1, 2) + 0 (3, -4) + 0.5 (5, 8) = (4.5, 8): not divided by their sum.
    jacobian = torch.tensor([[1.0, 2.0], [3.0, -4.0], [5.0, 8.0]], dtype=torch.float64)
    assert torch.equal(make("mean", weights=(2.0, 0.0, 0.5))(jacobian), torch.tensor([4.5, 8.0]).double())


def test_zero_row_counts_as_a_task():
    # ((3, 3) + (0, 0)) / 2: the zero row keeps its weight 1/2.
    jacobian = torch.tensor([[3.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
    assert torch.equal(make("mean")(jacobian), torch.tensor([1.5, 1.5]).double())


def test_direction_scales_with_the_gradients():
    jacobian = gaussian(5, 7)
    assert torch.equal(make("mean")(2.0**20 * jacobian), 2.0**20 * make("mean")(jacobian))


def test_permuted_tasks_with_permuted_weights_give_the_same_direction():
    jacobian = gaussian(3, 7)
    found = make("mean", weights=(0.3, 0.1, 0.2))(jacobian[[2, 0, 1]])
    assert torch.allclose(found, make("mean", weights=(0.1, 0.2, 0.3))(jacobian), rtol=1e-14)


def test_needs_nothing_but_losses():
    assert make("mean").need == Need.LOSSES
