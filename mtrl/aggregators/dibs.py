"""DiBS-MTL: bargain over directions alone, so that no task gains weight by its scale."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.base import Aggregator, Invariance
from mtrl.aggregators.system import Aggregation, GradientSystem

_SHORTEST = torch.finfo(torch.float32).tiny
"""Gradients shorter than this count as zero: the inverse of their length has no float32."""


class DiBS(Aggregator):
    """Move towards every task's own optimum at a speed set by the distance to it (DiBS-MTL).

    Within a ball of radius 1 around the parameters, with gradients frozen, task i would go to -u_i, its negative unit
    gradient. From the centre the bargaining takes `num_steps` steps Delta <- Delta - step_size mean_i rho_i u_i with
    rho_i = |Delta + u_i|, each followed by the projection onto the ball; the direction is -Delta. At one step of size 1
    it is the mean of the unit gradients. As only units enter, the direction is the same whatever positive factor any
    gradient carries, hence under any increasing transform of any loss. Of two tasks, none is ever harmed.

    Source: "DiBS-MTL: Transformation-Invariant Multitask Learning with Direction Oracles", 2026. Differs from the
    official codes, which (a) scale by the learning rate (1e-5 times the sum of units, or r^2 times it), (b) take the
    steps of the bargaining 1e-4 to 1e-2 radii long, so that all of them together stay one step in effect, (c) drop the
    point outside the ball instead of projecting it, which can return exactly zero, (d) divide by |g| + 1e-10, or by |g|
    even where it is zero.

    Cost: T^2 per step of the bargaining.
    """

    invariances = frozenset(Invariance)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """DiBS-MTL (2026): mean of unit gradients, or several steps of bargaining over directions."""

        num_steps: int = 1
        """Steps of the bargaining; one gives the mean of the unit gradients."""
        step_size: float = 1.0
        """Length of the first step where all gradients agree, in radii of the ball (so it has no unit). Values between
        0.1 and 1 are meaningful with several steps; at one step it only scales the direction."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            if self.num_steps < 1:
                raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")
            if not 0 < self.step_size < float("inf"):
                raise ValueError(f"step_size must be positive and finite, got {self.step_size}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the weights of the task gradients after the bargaining; as mixing, what makes them unit gradients."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        norms = system.gramian.diagonal().clamp(min=0).sqrt()
        inverse = torch.where(norms >= _SHORTEST, 1 / norms, 0.0)
        unit_gramian = system.gramian * inverse[:, None] * inverse[None, :]
        coefficients = bargain(unit_gramian, self.config.num_steps, self.config.step_size)
        return Aggregation(weights=inverse * coefficients, mixing=inverse.diag())


def bargain(unit_gramian: Float[Tensor, "task task"], num_steps: int, step_size: float) -> Float[Tensor, " task"]:
    """Take the steps of the bargaining in the ball of radius 1.

    Args:
        unit_gramian: Cosines between the task gradients; a row and column of zeros for a zero gradient.
        num_steps: Number of steps.
        step_size: Size of each, in radii.

    Returns:
        Coefficients a: the point reached is Delta = -sum_i a_i u_i, in the ball.
    """
    coefficients = torch.zeros_like(unit_gramian[0])
    squared_length = torch.zeros_like(coefficients[0])
    for _ in range(num_steps):
        # |Delta + u_i|^2 = |Delta|^2 - 2 <u_i, sum_j a_j u_j> + 1.
        distances = (1 - 2 * unit_gramian @ coefficients + squared_length).clamp(min=0).sqrt()
        coefficients = coefficients + step_size / len(coefficients) * distances
        length = (coefficients @ unit_gramian @ coefficients).clamp(min=0).sqrt()
        coefficients = coefficients / length.clamp(min=1)
        squared_length = length.clamp(max=1).square()
    return coefficients
