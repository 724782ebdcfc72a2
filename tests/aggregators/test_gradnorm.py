"""GradNorm: the first steps by hand and where training leads."""

import pytest
import torch
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.base import Aggregator
from tests.aggregators.weights import weights_of


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def train(aggregator: Aggregator, norms: Tensor, losses: Tensor | None, num_updates: int) -> Tensor:
    """Return the last weights of some updates with orthogonal gradients of the given lengths."""
    return [weights_of(aggregator, norms.diag(), losses) for _ in range(num_updates)][-1]


def test_weights_start_equal_and_move_by_the_learning_rate():
    # Lengths 1 and 3: the first weight has to grow, the second to shrink. Adam's first step has length lr.
    aggregator = make("gradnorm", lr=0.01)
    assert torch.allclose(train(aggregator, tensor(1, 3), None, 1), tensor(0.5, 0.5), rtol=1e-7)
    assert torch.allclose(aggregator.get_buffer("raw.values"), tensor(1.01, 0.99), rtol=1e-12)
    assert torch.allclose(train(aggregator, tensor(1, 3), None, 1), tensor(0.505, 0.495), rtol=1e-7)


def test_training_makes_the_lengths_equal():
    # w_1 = 4 w_2, summing to 1.
    weights = train(make("gradnorm", lr=0.01), tensor(1, 4), None, 300)
    assert torch.allclose(weights, tensor(0.8, 0.2), atol=0.02)


def test_slower_task_gets_the_longer_gradient():
    # Losses from (1, 1) to (1, 1/2): ratios (1, 1/2), r = (4/3, 2/3). At alpha = 1 lengths in the ratio 2 : 1.
    aggregator = make("gradnorm", lr=0.01, alpha=1.0)
    train(aggregator, tensor(1, 1), tensor(1, 1), 1)
    assert torch.allclose(train(aggregator, tensor(1, 1), tensor(1, 0.5), 300), tensor(2 / 3, 1 / 3), atol=0.02)


def test_first_losses_are_remembered():
    # The public RL code compares with the previous call's losses, so that the ratios are all 1.
    aggregator = make("gradnorm", alpha=1.0)
    train(aggregator, tensor(1, 1), tensor(2, 3), 1)
    train(aggregator, tensor(1, 1), tensor(1, 1), 2)
    assert torch.equal(aggregator.get_buffer("first_losses"), tensor(2, 3))


@pytest.mark.parametrize("losses", [(-1.0, 2.0), (0.0, 0.0), (-1.0, -1.0)])
def test_losses_that_are_not_positive_stay_finite(losses):
    aggregator = make("gradnorm", alpha=1.5)
    train(aggregator, tensor(1, 1), tensor(*losses), 2)
    assert train(aggregator, tensor(1, 1), tensor(1, -1), 2).isfinite().all()


def test_zero_gradient_does_not_enter_the_target():
    with_zero, without = make("gradnorm"), make("gradnorm")
    train(with_zero, tensor(1, 0, 3), None, 1)
    train(without, tensor(1, 3), None, 1)
    assert torch.allclose(with_zero.get_buffer("raw.values")[[0, 2]], without.get_buffer("raw.values"), rtol=1e-12)


@pytest.mark.parametrize("norms", [(1, 1000), (1, 1000, 1000, 1000), (1e-3, 1, 1, 1, 1)])
def test_no_task_is_lost_where_gradients_differ_by_a_thousand(norms):
    # Adam's steps of 1e-3 overshoot weights of 2e-3. With a weight that stays at zero, (1, 1000) ended at (1, 0).
    aggregator = make("gradnorm")
    weights = torch.stack([train(aggregator, tensor(*norms), None, 1) for _ in range(3300)])
    assert weights.amin() > 0
    lengths = weights[3000:].mean(0) * tensor(*norms)
    assert lengths.amax() <= 3 * lengths.amin()


def test_alpha_asks_for_losses():
    with pytest.raises(ValueError, match="losses are needed"):
        make("gradnorm", alpha=0.12)(torch.eye(2))
    assert make("gradnorm")(torch.eye(2)).isfinite().all()


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"lr": 0.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make("gradnorm", **options)
