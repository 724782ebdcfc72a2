"""CAGrad: the best worst task within a ball around the mean gradient."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.host import on_host
from mtrl.aggregators.solvers import guess_positive, newton_step, unit_system
from mtrl.aggregators.system import Aggregation, GradientSystem

Rescale = Literal["none", "linear", "square"]
Solver = Literal["exact", "sgd"]

_NEWTON_STEPS = 80  # 30 for ten tasks, 60 for fifty
_FIRST_BARRIER = 1e-2
_BARRIER_FACTOR = 0.01
_LAST_BARRIER = 1e-12
_SETTLED_DECREMENT = 1e-4  # before the last step, which squares it
# Length, in units of the shortest gradient, below which a convex combination counts as zero. Bounds the weights by 1e6
# where the gradients cancel, as much as float32 rows bear.
_CANCELLED = 1e-6
_LONGER = 1e-9  # than c a step may be by rounding, squared
_SGD_STEPS = 20
_SGD_MOMENTUM = 0.5
_SGD_EPS = 1e-4


class CAGrad(Aggregator):
    """Maximise the progress of the worst-off task, at most c ||g_0|| away from the mean gradient g_0.

    d = g_0 + c ||g_0|| g_w / ||g_w|| with g_w = sum_i w_i g_i and w the minimum of <g_w, g_0> + c ||g_0|| ||g_w|| over
    w >= 0, sum(w) = 1. c = 0 is the mean; for c < 1 the fixed points are those of the mean loss.

    Source: Liu, Liu, Jin, Stone, Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021,
    algorithm 1 and equation 4. `exact` is the minimum to the last digits; `sgd` repeats the official code for
    reinforcement learning, 20 steps on softmax logits, which stops 0 to 12% away on similar gradients and up to 56% on
    conflicting ones. Differs from both in that a zero gradient is left out of the mean and of w (`exact` only).

    Cost: `exact` 1 to 9 linear systems of T^3 or, where gradients depend on one another, up to 80; `sgd` 20 steps of
    T^2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """CAGrad (Liu et al. 2021): best worst task near the mean gradient."""

        c: float = 0.9
        """Radius of the ball in units of the mean gradient's length: 0.9 on MT10, 0.5 on MT50 in the paper."""
        rescale: Rescale = "square"
        """Divide the direction by 1 + c^2 (square, the official code), by 1 + c (linear) or not at all."""
        solver: Solver = "exact"
        """The minimum itself, or the official 20 steps of gradient descent."""

        def __post_init__(self) -> None:
            """Check the radius."""
            if not 0 <= self.c < float("inf"):
                raise ValueError(f"c must be finite and not negative, got {self.c}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the weights of g_0 plus those of the step to the edge of the ball."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        c = self.config.c
        weights = (exact_weights if self.config.solver == "exact" else sgd_weights)(system.gramian, c)
        divisor = {"none": 1.0, "linear": 1 + c, "square": 1 + c**2}[self.config.rescale]
        return Aggregation(weights / divisor)


@on_host
def exact_weights(gramian: Float[Tensor, "task task"], c: float) -> Float[Tensor, " task"]:
    """Compute the weights of g_0 + c ||g_0|| g_w / ||g_w||.

    In terms of the unit gradients u_i and y_i = w_i n_i the problem, divided by ||g_0||, is to minimise
    q^T y + c ||sum y_i u_i|| over y >= 0, b^T y = 1, with q_i = <u_i, g_0> / ||g_0|| and b = 1 / n, the largest of
    which is 1. Both terms are homogeneous, so a penalty replaces the constraint: any multiple of y serves.
    """
    cosines, norms, is_nonzero = unit_system(gramian)
    mean = is_nonzero.double() / is_nonzero.sum().clamp(min=1)
    lengths = mean * norms  # g_0 = sum lengths_i u_i
    products = cosines @ lengths
    mean_norm = (lengths @ products).clamp(min=0).sqrt()
    # Opposite gradients cancel to rounding noise, whose direction means nothing.
    has_mean = mean_norm > 1e-12 * lengths.amax()
    q = torch.where(has_mean & is_nonzero, products / torch.where(has_mean, mean_norm, 1.0), 1.0)
    inverse = torch.where(is_nonzero, 1 / norms, 0.0)
    step = ball_step(cosines, q, inverse / inverse.amax().clamp(min=1e-300), c) * is_nonzero
    return mean + torch.where(has_mean, mean_norm, 0.0) * step / norms


def ball_step(
    cosines: Float[Tensor, "task task"], q: Float[Tensor, " task"], b: Float[Tensor, " task"], c: float
) -> Float[Tensor, " task"]:
    """Return c y / ||sum y_i u_i|| for the y >= 0 that minimises (q^T y + c ||sum y_i u_i||) / b^T y.

    Of the step x = c y / ||sum y_i u_i|| the conditions are q + C x >= mu b, equal where x > 0, and x^T C x = c^2. Once
    it is known which x_i are positive, C x = mu b - q among them, and mu is the root of a quadratic equation.
    """
    matrix = cosines + _CANCELLED**2 * torch.outer(b, b)
    identity = torch.eye(len(q), dtype=q.dtype, device=q.device)

    def solve(is_positive: Tensor) -> tuple[Tensor, Tensor]:
        both = is_positive[:, None] & is_positive[None, :]
        factor, _ = torch.linalg.cholesky_ex(torch.where(both, matrix, identity))
        right = torch.stack([b, q], 1) * is_positive[:, None]
        along_b, along_q = torch.cholesky_solve(right, factor).unbind(1)
        square, product = b @ along_b, b @ along_q
        # Below zero where the objective falls without end among them: some of x are then negative, and leave.
        root = (product**2 - square * (q @ along_q - c**2)).clamp(min=0).sqrt()
        mu = (product + root) / square  # of both roots the one with b^T x > 0
        x = mu * along_b - along_q
        return x, q + matrix @ x - mu * b

    x, is_found = guess_positive(solve, b > 0)
    is_found &= x @ matrix @ x <= c**2 * (1 + _LONGER)
    return x if is_found else newton_ball_step(cosines, q, b, c)


def newton_ball_step(
    cosines: Float[Tensor, "task task"], q: Float[Tensor, " task"], b: Float[Tensor, " task"], c: float
) -> Float[Tensor, " task"]:
    """Do what `ball_step` does also where gradients cancel.

    Newton's method on q^T y + c ||sum y_i u_i|| + 2 (b^T y - 1)^2 - barrier sum log y_i, the barrier falling to 1e-12.
    """
    # Where c does not suffice to help a short gradient, the minimum is negative, and far below -1 under other lengths.
    b = b * (-torch.where(b > 0, q / torch.where(b > 0, b, 1.0), 0.0).amin()).clamp(min=1)
    y = torch.full_like(q, 1 / len(q))
    barrier = torch.full_like(q[0], _FIRST_BARRIER)
    for _ in range(_NEWTON_STEPS):

        def gradient(y: Tensor, barrier: Tensor = barrier) -> Tensor:
            inner = y @ cosines
            length = ((inner * y).sum(-1, keepdim=True).clamp(min=0) + _CANCELLED**2).sqrt()
            return q + c * inner / length + 4 * b * ((y * b).sum(-1, keepdim=True) - 1) - barrier / y

        inner = cosines @ y
        length = ((inner @ y).clamp(min=0) + _CANCELLED**2).sqrt()
        curvature = (cosines - torch.outer(inner, inner) / length**2) * (c / length)
        hessian = curvature + 4 * torch.outer(b, b) + torch.diag(barrier / y**2 + 1e-15)
        y, decrement = newton_step(y, gradient, hessian)
        # Relative to the barrier, as the curvature is in directions that nothing but the barrier decides.
        if (barrier <= _LAST_BARRIER) & (decrement <= _SETTLED_DECREMENT * barrier):
            break
        barrier = torch.where(decrement < barrier, _BARRIER_FACTOR * barrier, barrier).clamp(min=_LAST_BARRIER)
    length = ((y @ cosines @ y).clamp(min=0) + _CANCELLED**2).sqrt()
    return c * y / length


@on_host
def sgd_weights(gramian: Float[Tensor, "task task"], c: float) -> Float[Tensor, " task"]:
    """Compute the weights as the official code for reinforcement learning does.

    Source: github.com/Cranial-XIX/CAGrad, mtrl/mtrl_files/cagrad.py, `Agent.cagrad`.
    """
    num_tasks = len(gramian)
    learning_rate = 50 if num_tasks == 50 else 25  # as in the official code
    scale = (gramian.diagonal() + _SGD_EPS).sqrt().mean()
    gramian = gramian / scale**2
    products = gramian.mean(1)
    radius = c * (products.mean() + _SGD_EPS).sqrt()
    logits = torch.zeros_like(products)
    velocity = torch.zeros_like(products)
    best_logits, best_value = logits, torch.full_like(radius, torch.inf)
    for _ in range(_SGD_STEPS + 1):
        w = logits.softmax(0)
        length = (w @ gramian @ w + _SGD_EPS).sqrt()
        value = w @ products + radius * length
        best_logits = torch.where(value < best_value, logits, best_logits)
        best_value = torch.minimum(value, best_value)
        slope = products + radius * (gramian @ w) / length
        velocity = _SGD_MOMENTUM * velocity + w * (slope - w @ slope)
        logits = logits - learning_rate * velocity
    w = best_logits.softmax(0)
    length = (w @ gramian @ w + _SGD_EPS).sqrt()
    return 1 / num_tasks + w * radius / (length + _SGD_EPS)
