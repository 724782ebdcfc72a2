"""FairGrad: the fairness equation for several alphas, and what it becomes for special ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtrl.aggregators import make
from mtrl.aggregators.fairgrad import fair_weights
from mtrl.aggregators.system import gramian
from tests.aggregators.jacobians import FULL_RANK
from tests.aggregators.strategies import few, jacobians

ALPHAS = (0.1, 0.5, 1.0, 2.0, 10.0)


def test_orthogonal_gradients_by_hand():
    # w n^2 = w^(-1/2): w = n^(-4/3). n = (8, 1): w = (1/16, 1).
    weights = fair_weights(torch.diag(torch.tensor([64.0, 1.0], dtype=torch.float64)), 2.0)
    assert torch.allclose(weights, torch.tensor([1 / 16, 1.0]).double(), rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_two_equal_gradients_by_hand(alpha):
    # G = 4 in every entry: 8 w = w^(-1/alpha), w = 8^(-alpha / (1 + alpha)).
    weights = fair_weights(torch.full((2, 2), 4.0).double(), alpha)
    assert torch.allclose(weights, torch.full((2,), 8 ** (-alpha / (1 + alpha)), dtype=torch.float64), rtol=1e-9)


@few
@given(jacobian=jacobians(decades=(0, 1), may_depend=False), alpha=st.sampled_from(ALPHAS))
def test_weights_solve_the_fairness_equation(jacobian, alpha):
    is_nonzero = jacobian.norm(dim=1) > 0
    weights = fair_weights(gramian((jacobian,)), alpha)
    progress = jacobian @ (weights @ jacobian)
    assert (weights[~is_nonzero] == 0).all()
    assert (progress[is_nonzero] * weights[is_nonzero] ** (1 / alpha) - 1).abs().max() <= 1e-5


@pytest.mark.parametrize("alpha", [5.0, 10.0])
def test_weights_solve_the_fairness_equation_over_eight_decades(alpha):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        decades = 8 * torch.rand(5, 1, generator=generator, dtype=torch.float64) - 4
        jacobian = torch.randn(5, 8, generator=generator, dtype=torch.float64) * 10**decades
        weights = fair_weights(gramian((jacobian,)), alpha)
        assert ((jacobian @ (weights @ jacobian)) * weights ** (1 / alpha) - 1).abs().max() <= 0.1


@few
@given(jacobian=jacobians(), alpha=st.sampled_from(ALPHAS))
def test_any_system_has_finite_weights(jacobian, alpha):
    assert make("fairgrad", alpha=alpha, max_norm=None)(jacobian).isfinite().all()
    assert make("fairgrad", alpha=alpha, max_norm=None, solver="sgd")(jacobian).isfinite().all()


@pytest.mark.parametrize("case", FULL_RANK)
def test_alpha_of_one_is_nash(case):
    assert torch.equal(make("fairgrad", alpha=1.0)(FULL_RANK[case]), make("nash")(FULL_RANK[case]))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_length_follows_the_scale_by_its_power(alpha):
    # w scales by s^(-2 alpha / (1 + alpha)), d by s^((1 - alpha) / (1 + alpha)).
    jacobian = FULL_RANK["five similar"]
    fair = make("fairgrad", alpha=alpha, max_norm=None)
    expected = 100 ** ((1 - alpha) / (1 + alpha)) * fair(jacobian)
    assert torch.allclose(fair(100 * jacobian), expected, rtol=1e-9)


def test_larger_alpha_favours_the_worst_off_task():
    jacobian = FULL_RANK["two in conflict"] * torch.tensor([[1.0], [0.1]]).double()
    shares = []
    for alpha in (0.5, 2.0, 8.0):
        progress = jacobian @ make("fairgrad", alpha=alpha)(jacobian)
        shares.append(float(progress.min() / progress.sum()))
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": float("inf")}, {"max_norm": 0.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make("fairgrad", **options)
