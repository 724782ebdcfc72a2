"""UPGrad and DualProj: values by hand and the conditions of a projection."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.dualproj import project
from mtrl.aggregators.system import GradientSystem, gramian
from tests.aggregators.jacobians import FULL_RANK, gaussian
from tests.aggregators.strategies import few, jacobians

PLAIN = 1e-10
"""Regularisation that changes no digit looked at here."""
methods = pytest.mark.parametrize("name", ["upgrad", "dualproj"])


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_mean_is_projected_by_hand():
    # g1 = (1, 0), g2 = (-2, 1): mean (-1/2, 1/2) conflicts with g1 and loses what points along it: (0, 1/2).
    direction = make("dualproj", reg_eps=PLAIN)(rows([1.0, 0.0], [-2.0, 1.0]))
    assert torch.allclose(direction, rows([0.0, 0.5])[0], atol=1e-8)


def test_each_gradient_is_projected_by_hand():
    # g1 = (1, 0), g2 = (-2, 1). g1 loses what points against g2: (1, 0) + 2/5 (-2, 1) = (1/5, 2/5); g2 what points
    # against g1: (0, 1). Mean: (1/10, 7/10).
    direction = make("upgrad", reg_eps=PLAIN)(rows([1.0, 0.0], [-2.0, 1.0]))
    assert torch.allclose(direction, rows([0.1, 0.7])[0], atol=1e-8)


@methods
def test_gradients_that_agree_are_averaged(name):
    jacobian = rows([1.0, 0.0], [1.0, 1.0], [0.0, 2.0])
    weights = (0.5, 0.3, 0.2)
    assert torch.allclose(make(name, weights=weights)(jacobian), rows(list(weights))[0] @ jacobian, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_two_tasks_are_those_of_pcgrad(seed):
    jacobian = gaussian(2, 3, seed)
    found, expected = make("upgrad", reg_eps=PLAIN)(jacobian), make("pcgrad")(jacobian)
    assert (found - expected).norm() <= 1e-6 * jacobian.norm()


@few
@given(jacobian=jacobians(decades=(0, 2)), reg_eps=st.sampled_from([1e-4, 1e-2]))
def test_projections_meet_their_optimality_conditions(jacobian, reg_eps):
    # min v^T G~ v over v >= u: v >= u, G~ v >= 0, and in each coordinate one of them binds.
    jacobian = jacobian[jacobian.norm(dim=1) > 0]
    products = gramian((jacobian,))
    identity = torch.eye(len(products), dtype=torch.float64)
    regularized = products / products.trace() + reg_eps * identity
    for u in (identity, torch.full((len(products),), 1 / len(products), dtype=torch.float64)):
        v = project(products, u, reg_eps)
        assert (v - u).min() >= -1e-12
        assert torch.minimum(v - u, v @ regularized).abs().max() <= 1e-9


@pytest.mark.parametrize("case", FULL_RANK)
@methods
def test_direction_conflicts_with_no_task(name, case):
    jacobian = FULL_RANK[case]
    direction = make(name, reg_eps=1e-12)(jacobian)
    assert (jacobian @ direction / jacobian.norm(dim=1)).min() >= -1e-6 * direction.norm()


def test_mixing_holds_the_projected_gradients():
    jacobian = FULL_RANK["five similar"]
    aggregator = make("upgrad", weights=(0.1, 0.2, 0.3, 0.0, 0.4), reg_eps=1e-12)
    aggregator.setup(5, [jacobian.shape[1:]], jacobian.device)
    aggregation = aggregator.aggregate(GradientSystem(num_tasks=5, gramian=gramian((jacobian,))))
    assert aggregation.mixing is not None
    assert (aggregation.mixing @ jacobian @ jacobian.T).min() >= -1e-9  # every projected one agrees with every task
    assert aggregation.weights is not None
    assert torch.allclose(aggregation.weights, aggregator.get_buffer("task_weights") @ aggregation.mixing)


@methods
@pytest.mark.parametrize("reg_eps", [0.0, 1.0, float("nan")])
def test_impossible_regularisation_is_refused(name, reg_eps):
    with pytest.raises(ValueError, match="reg_eps"):
        make(name, reg_eps=reg_eps)
