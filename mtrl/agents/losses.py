"""The formulas of soft actor-critic for one task, as pure functions of tensors.

Source: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018 (arXiv 1812.05905).
"""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
"""Bounds of the policy's log standard deviation, as in the authors' code."""


def split_policy(
    output: Float[Tensor, "*batch twice_action"],
) -> tuple[Float[Tensor, "*batch action"], Float[Tensor, "*batch action"]]:
    """Read the mean and the log standard deviation, clipped to its bounds, from the actor's output."""
    mean, log_std = output.chunk(2, dim=-1)
    return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)


def squashed_sample(
    output: Float[Tensor, "*batch twice_action"], noise: Float[Tensor, "*batch action"]
) -> tuple[Float[Tensor, "*batch action"], Float[Tensor, " *batch"]]:
    """Turn standard normal noise into actions in [-1, 1] and their log-probabilities.

    log pi(a) = log N(u; mean, std) - sum log(1 - tanh(u)^2), with the last term in the form
    2 (log 2 - u - softplus(-2 u)) that does not overflow.

    Source: Haarnoja et al. 2018, appendix C, equation 26.
    """
    mean, log_std = split_policy(output)
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    log_det = 2 * (math.log(2) - u - softplus(-2 * u))
    return u.tanh(), (log_normal - log_det).sum(-1)


def td_target(
    reward: Float[Tensor, " *batch"],
    terminated: Float[Tensor, " *batch"],
    next_q: Float[Tensor, "*batch member"],
    next_log_prob: Float[Tensor, " *batch"],
    temperature: Float[Tensor, " *#batch"],
    gamma: float,
) -> Float[Tensor, " *batch"]:
    """Compute r + gamma (1 - terminated) (min_k Q_k(s', a') - alpha log pi(a'|s')).

    Time limits do not appear: a truncated step bootstraps like any other.

    Source: Haarnoja et al. 2018, equations 3 and 5; the minimum is from section 5.
    """
    next_value = next_q.amin(-1) - temperature * next_log_prob
    return reward + gamma * (1 - terminated) * next_value


def critic_loss(q: Float[Tensor, "batch member"], target: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Compute the mean squared Bellman error, summed over the critics.

    Source: Haarnoja et al. 2018, equation 5, without the factor 1/2 (as in most codes).
    """
    return (q - target[:, None]).square().mean(0).sum()


def actor_loss(
    log_prob: Float[Tensor, " batch"], q: Float[Tensor, "batch member"], temperature: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Compute the mean of alpha log pi(a|s) - min_k Q_k(s, a).

    Source: Haarnoja et al. 2018, equation 9.
    """
    return (temperature * log_prob - q.amin(-1)).mean()


def temperature_gradient(log_prob: Float[Tensor, "*task batch"], target_entropy: float) -> Float[Tensor, " *task"]:
    """Return the gradient of -log_alpha (log pi + target entropy) with respect to log_alpha.

    Source: Haarnoja et al. 2018, equation 18, with log alpha in place of alpha as in the authors' code.
    """
    return -(log_prob.mean(-1) + target_entropy)
