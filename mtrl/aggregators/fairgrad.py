"""FairGrad: weights under which the progress of the tasks is alpha-fair."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.base import Aggregator, Invariance
from mtrl.aggregators.host import on_host
from mtrl.aggregators.solvers import clip_weights, newton_step, unit_system
from mtrl.aggregators.system import Aggregation, GradientSystem

Solver = Literal["exact", "sgd"]

# 12 suffice for the default where a solution exists, 25 where the gradients cancel; alpha = 10 takes up to 200.
_NEWTON_STEPS = 200
# Added to the cosines' diagonal. Where gradients cancel there is no solution; this one has a direction near zero, and
# weights that float32 rows bear. They grow more slowly below alpha = 1, where short gradients need more resolution.
_CANCELLED = 1e-10
_CANCELLED_BELOW_ONE = 1e-13
_SETTLED_DECREMENT = 1e-26  # squared, so the next step changes the 13th digit
_SGD_STEPS = 20
_SGD_RATE = 0.1
_SGD_MOMENTUM = 0.5
_SGD_EPS = 1e-8


class FairGrad(Aggregator):
    """Divide the progress among the tasks by alpha-fairness: the weights w > 0 solve J J^T w = w^(-1/alpha).

    The progress of task i is (J d)_i = w_i^(-1/alpha) > 0, so the direction d = J^T w conflicts with no task. alpha = 1
    is Nash-MTL; larger values favour the worst-off task.

    Source: Ban, Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024, equation 6. `exact` minimises the
    convex w^T J J^T w / 2 - sum_i w_i^(1-1/alpha) / (1-1/alpha), whose gradient the equation is, by Newton's method.
    `sgd` repeats the official code for reinforcement learning: 20 steps on the squared residual, whose direction has
    nothing to do with the solution under conflict (cosine 0.15 to 0.6). Differs from the official code in that the
    weights are not multiplied by T before the clipping; a zero gradient gets weight 0 (`exact` only).

    Cost: `exact` about 12 Newton steps of T^3, 200 at most; `sgd` 20 steps of T^2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """FairGrad (Ban, Ji 2024): alpha-fair progress of the tasks."""

        alpha: float = 2.0
        """Fairness: 1 is proportional (Nash-MTL), 2 the paper's choice on MT10; 0.1 to 10."""
        max_norm: float | None = 1.0
        """Longest direction; None leaves the length, which shrinks as the gradients grow where alpha > 1."""
        solver: Solver = "exact"
        """The solution itself, or the official 20 steps of gradient descent."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            if not 0.1 <= self.alpha <= 10:
                raise ValueError(f"alpha must be between 0.1 and 10, got {self.alpha}")
            if self.max_norm is not None and self.max_norm <= 0:
                raise ValueError(f"max_norm must be positive, got {self.max_norm}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        if config.alpha == 1 and config.solver == "exact":
            self.invariances = frozenset(Invariance)

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the fair weights, scaled down where the direction would be too long."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        solve = fair_weights if self.config.solver == "exact" else sgd_weights
        weights = solve(system.gramian, self.config.alpha)
        return Aggregation(clip_weights(weights, system.gramian, self.config.max_norm))


@on_host
def fair_weights(gramian: Float[Tensor, "task task"], alpha: float) -> Float[Tensor, " task"]:
    """Solve G w = w^(-1/alpha) for w > 0; a zero gradient gets weight 0.

    Orthogonal gradients have w_i = n_i^(-2 alpha / (1 + alpha)); the unknown is the factor on that, b. With
    m_i = n_i^((1 - alpha) / (1 + alpha)) it solves (m C m) b = m^2 b^(-1/alpha), C the cosines.
    """
    cosines, norms, is_nonzero = unit_system(gramian)
    share = norms ** ((1 - alpha) / (1 + alpha))
    ridge = _CANCELLED if alpha >= 1 else _CANCELLED_BELOW_ONE
    identity = torch.eye(len(norms), dtype=norms.dtype, device=norms.device)
    matrix = (cosines + ridge * identity) * torch.outer(share, share)
    gain = share**2
    b = torch.ones_like(norms)
    for _ in range(_NEWTON_STEPS):
        hessian = matrix + torch.diag(gain * b ** (-1 / alpha - 1) / alpha)
        b, decrement = newton_step(b, lambda b: b @ matrix - gain * b ** (-1 / alpha), hessian)
        if decrement <= _SETTLED_DECREMENT * gain.amax():
            break
    return torch.where(is_nonzero, b * norms ** (-2 * alpha / (1 + alpha)), 0.0)


@on_host
def sgd_weights(gramian: Float[Tensor, "task task"], alpha: float) -> Float[Tensor, " task"]:
    """Compute the weights as the official code for reinforcement learning does.

    Source: github.com/OptMN-Lab/fairgrad, mtrl/mtrl_files/fairgrad.py, `Agent.fairgrad`.
    """
    w = torch.full_like(gramian[0], 1 / len(gramian))
    velocity = torch.zeros_like(w)
    best_w, best_value = w, torch.full_like(w[0], torch.inf)
    for _ in range(_SGD_STEPS):
        residual = gramian @ w - (w + _SGD_EPS) ** (-1 / alpha)
        value = residual @ residual
        best_w = torch.where(value < best_value, w, best_w)
        best_value = torch.minimum(value, best_value)
        slope = 2 * (gramian @ residual + (w + _SGD_EPS) ** (-1 / alpha - 1) / alpha * residual)
        slope = slope / slope.norm().clamp(min=1)
        velocity = _SGD_MOMENTUM * velocity + slope
        w = (w - _SGD_RATE * velocity).clamp(min=_SGD_EPS)
    return best_w
