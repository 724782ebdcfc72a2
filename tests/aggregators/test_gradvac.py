"""GradVac: one turn by hand, the angle it reaches, and how its targets move."""

import pytest
import torch
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.gradvac import turn
from mtrl.aggregators.pcgrad import random_orders
from mtrl.aggregators.system import gramian
from tests.aggregators.jacobians import FULL_RANK, gaussian

ORDERS = torch.tensor([[1], [0]])


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_one_turn_by_hand():
    # g1 = (2, 0), g2 = (0, 1), target 3/5 for g1 only: phi = 0, step 2 (3/5 * 1 - 0) / (1 * 4/5) = 3/2, g1' = (2, 3/2),
    # whose cosine with g2 is 1.5 / 2.5 = 3/5. g2 has target 0 = phi and stays. Targets: 3/5 -> 3/10 at momentum 1/2.
    products = gramian((tensor([2.0, 0.0], [0.0, 1.0]),))
    coefficients, targets = turn(products, ORDERS, tensor([0.0, 0.6], [0.0, 0.0]), 0.5, "always")
    assert torch.allclose(coefficients, tensor([1.0, 1.5], [0.0, 1.0]), rtol=1e-14)
    assert torch.allclose(targets, tensor([0.0, 0.3], [0.0, 0.0]), rtol=1e-14)


@pytest.mark.parametrize(("target_update", "expected"), [("always", 0.55), ("adjusted", 0.5)])
def test_target_moves_with_agreeing_gradients_only_on_request(target_update, expected):
    # cos = 3/5 is above the target 1/2: no turn. Always: 1/2 + 1/2 (3/5 - 1/2) = 0.55.
    products = gramian((tensor([1.0, 0.0], [0.6, 0.8]),))
    coefficients, targets = turn(products, ORDERS, tensor([0.0, 0.5], [0.5, 0.0]), 0.5, target_update)
    assert torch.equal(coefficients, torch.eye(2).double())
    assert torch.allclose(targets, tensor([0.0, expected], [expected, 0.0]), rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_turned_gradient_has_the_target_cosine_with_the_last_it_was_turned_to(seed):
    jacobian = gaussian(5, 20, seed)
    target = 0.3  # above the cosines of independent rows, so that each turn is made
    orders = random_orders(5, torch.Generator().manual_seed(seed), torch.device("cpu"))[:, :1]
    coefficients, _ = turn(gramian((jacobian,)), orders, torch.full((5, 5), target, dtype=torch.float64), 0.5, "always")
    turned = torch.nn.functional.normalize(coefficients @ jacobian)
    other = torch.nn.functional.normalize(jacobian)[orders[:, 0]]
    before = (torch.nn.functional.normalize(jacobian) * other).sum(1)
    assert (before < target).sum() >= 3
    assert torch.allclose((turned * other).sum(1), before.clamp(min=target), rtol=1e-9)


@pytest.mark.parametrize("case", FULL_RANK)
def test_targets_that_stay_at_a_right_angle_make_it_pcgrad(case):
    jacobian = FULL_RANK[case]
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    found, expected = make("gradvac", momentum=0.0), make("pcgrad")
    for _ in range(2):
        difference = found(jacobian, generator=generators[0]) - expected(jacobian, generator=generators[1])
        assert difference.norm() <= 1e-9 * jacobian.norm()


def test_zero_gradient_is_not_turned_to_and_moves_no_target():
    products = gramian((tensor([1.0, 0.0], [0.0, 0.0], [-1.0, 1.0]),))
    orders = torch.tensor([[1, 2], [0, 2], [1, 0]])
    start = torch.full((3, 3), 0.4, dtype=torch.float64)
    coefficients, targets = turn(products, orders, start, 0.5, "always")
    assert torch.equal(coefficients[[0, 2], 1], tensor(0.0, 0.0))
    assert torch.equal(targets[1], start[1])
    assert torch.equal(targets[[0, 2], 1], tensor(0.4, 0.4))
    assert not torch.equal(targets[0, 2], start[0, 2])


def test_parallel_gradients_stay_finite_for_many_updates():
    jacobian = FULL_RANK["five similar"][[0, 0, 1, 1]]
    aggregator = make("gradvac")
    longest = max(float(aggregator(jacobian).norm()) for _ in range(100))
    assert aggregator.get_buffer("targets").max() > 1 - 1e-12
    assert longest <= 100 * jacobian.norm()


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_impossible_momentum_is_refused(momentum):
    with pytest.raises(ValueError, match="momentum"):
        make("gradvac", momentum=momentum)
