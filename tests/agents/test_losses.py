"""The formulas of soft actor-critic, by hand and against torch.distributions."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from mtrl.agents.losses import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    actor_loss,
    critic_loss,
    split_policy,
    squashed_sample,
    td_target,
    temperature_gradient,
)


def grad_of(parameter: Tensor) -> Tensor:
    """Return the gradient, which must be there."""
    assert parameter.grad is not None
    return parameter.grad


# ------------------------------------------------------------------------------------------------------------ policy


def test_policy_output_is_mean_then_log_std_within_bounds():
    mean, log_std = split_policy(torch.tensor([[7.0, -30.0, 5.0, -50.0], [1.0, 2.0, 0.5, -3.0]]))
    assert torch.equal(mean, torch.tensor([[7.0, -30.0], [1.0, 2.0]]))
    assert torch.equal(log_std, torch.tensor([[LOG_STD_MAX, LOG_STD_MIN], [0.5, -3.0]]))


def test_sample_by_hand():
    # mean 0, std 1, noise 0: action tanh 0 = 0, log-probability log N(0; 0, 1) - log 1 = -log(2 pi) / 2 = -0.918939.
    # mean 1, std e^-1, noise 2: u = 1 + 2 / e = 1.735759, action 0.939733; log N = -2 + 1 - 0.918939 = -1.918939;
    # log(1 - 0.939733^2) = log 0.116902 = -2.146417; log-probability -1.918939 + 2.146417 = 0.227479.
    output = torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=torch.float64)
    action, log_prob = squashed_sample(output, torch.tensor([[0.0], [2.0]], dtype=torch.float64))
    assert torch.allclose(action, torch.tensor([[0.0], [0.939733]]).double(), atol=1e-6)
    assert torch.allclose(log_prob, torch.tensor([-0.918939, 0.227479]).double(), atol=5e-6)


def test_log_probability_equals_that_of_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    output = 0.5 * torch.randn(200, 6, generator=generator, dtype=torch.float64)  # log_std within its bounds
    noise = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    mean, log_std = output.chunk(2, dim=-1)
    policy = Independent(TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform()), 1)
    action, log_prob = squashed_sample(output, noise)
    assert torch.allclose(action, torch.tanh(mean + log_std.exp() * noise), rtol=1e-14)
    # The library inverts tanh, which costs it some digits.
    assert torch.allclose(log_prob, policy.log_prob(action), rtol=1e-7)


def test_log_probability_stays_finite_where_tanh_saturates():
    # At u = 50 the density's log-determinant is 2 (log 2 - 50): log(1 - tanh^2) itself would be -inf in float32.
    output = torch.tensor([[50.0, 0.0], [-50.0, 0.0]])
    action, log_prob = squashed_sample(output, torch.zeros(2, 1))
    assert torch.equal(action, torch.tensor([[1.0], [-1.0]]))
    expected = -0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 50)
    assert torch.allclose(log_prob, torch.full((2,), expected))


def test_gradient_flows_through_mean_and_log_std():
    # d tanh(mean + e^log_std noise) at mean 0, log_std 0, noise 0.5: (1 - tanh(0.5)^2) (1, 0.5) = 0.786448 (1, 0.5).
    output = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    action, _ = squashed_sample(output, torch.tensor([0.5], dtype=torch.float64))
    action.sum().backward()
    assert torch.allclose(grad_of(output), torch.tensor([0.786448, 0.393224]).double(), atol=1e-6)


# ------------------------------------------------------------------------------------------------------------ critic


def target(**changes):
    """Return 1 + 0.9 (1 - terminated) (min(5, 3) - 0.5 * 4) unless changed."""
    values = {
        "reward": torch.tensor([1.0]),
        "terminated": torch.tensor([0.0]),
        "next_q": torch.tensor([[5.0, 3.0]]),
        "next_log_prob": torch.tensor([4.0]),
        "temperature": torch.tensor([0.5]),
        "gamma": 0.9,
    } | changes
    return td_target(**values)


def test_target_by_hand():
    # 1 + 0.9 (min(5, 3) - 0.5 * 4) = 1 + 0.9 * 1 = 1.9.
    assert torch.allclose(target(), torch.tensor([1.9]))


def test_target_takes_the_smaller_critic_of_each_row():
    # Rows: min(5, 3) = 3 -> 1.9; min(-1, 7) = -1 -> 1 + 0.9 (-1 - 2) = -1.7.
    found = target(
        reward=torch.ones(2),
        terminated=torch.zeros(2),
        next_q=torch.tensor([[5.0, 3.0], [-1.0, 7.0]]),
        next_log_prob=torch.full((2,), 4.0),
    )
    assert torch.allclose(found, torch.tensor([1.9, -1.7]))


def test_termination_does_not_bootstrap():
    # Only the reward is left, the entropy bonus of the next action included.
    assert torch.equal(target(terminated=torch.tensor([1.0])), torch.tensor([1.0]))


def test_entropy_raises_the_target():
    # Less likely next actions (log-probability -4): 1 + 0.9 (3 + 2) = 5.5.
    assert torch.allclose(target(next_log_prob=torch.tensor([-4.0])), torch.tensor([5.5]))


def test_temperature_is_each_tasks_own():
    # Two tasks of one row, temperatures 0.5 and 2: 1 + 0.9 (3 - 2) = 1.9 and 1 + 0.9 (3 - 8) = -3.5.
    found = target(
        reward=torch.ones(2, 1),
        terminated=torch.zeros(2, 1),
        next_q=torch.tensor([[[5.0, 3.0]], [[5.0, 3.0]]]),
        next_log_prob=torch.full((2, 1), 4.0),
        temperature=torch.tensor([[0.5], [2.0]]),
    )
    assert torch.allclose(found, torch.tensor([[1.9], [-3.5]]))


def test_critic_loss_by_hand():
    # Errors (1, 0), (3, -1) against targets 1 and 2: mean of (1, 9) is 5, of (0, 1) is 0.5; the sum over critics 5.5.
    q = torch.tensor([[2.0, 1.0], [5.0, 1.0]])
    assert critic_loss(q, torch.tensor([1.0, 2.0])) == 5.5


# ----------------------------------------------------------------------------------------------- actor, temperature


def test_actor_loss_by_hand():
    # Rows 0.5 * 2 - min(3, 1) = 0 and 0.5 * (-4) - min(-2, 6) = 0; with temperature 1: 1 and -2, mean -0.5.
    log_prob, q = torch.tensor([2.0, -4.0]), torch.tensor([[3.0, 1.0], [-2.0, 6.0]])
    assert actor_loss(log_prob, q, torch.tensor(0.5)) == 0
    assert actor_loss(log_prob, q, torch.tensor(1.0)) == -0.5


def test_temperature_gradient_by_hand():
    # Task 0: mean log-probability 1, entropy -1, above the target -2: -(1 - 2) = 1 > 0, descent lowers log alpha.
    # Task 1: mean log-probability 5, entropy -5, below the target -2: -(5 - 2) = -3 < 0, descent raises it.
    log_prob = torch.tensor([[0.0, 2.0], [4.0, 6.0]])
    assert torch.equal(temperature_gradient(log_prob, target_entropy=-2.0), torch.tensor([1.0, -3.0]))


def test_temperature_gradient_is_that_of_the_loss():
    log_alpha = torch.tensor([0.3, -0.2], requires_grad=True)
    log_prob = torch.tensor([[0.5, 2.0], [4.0, -6.0]])
    (-(log_alpha[:, None] * (log_prob - 2.0)).mean(1)).sum().backward()
    assert torch.allclose(grad_of(log_alpha), temperature_gradient(log_prob, target_entropy=-2.0))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_formulas_take_any_number_of_leading_axes(shape):
    action, log_prob = squashed_sample(torch.zeros(*shape, 4), torch.zeros(*shape, 2))
    assert action.shape == (*shape, 2)
    assert log_prob.shape == shape
