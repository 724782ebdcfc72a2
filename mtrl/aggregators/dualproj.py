"""DualProj: the mean gradient, projected onto the directions that conflict with no task."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.base import WeightedAggregator, check_task_weights
from mtrl.aggregators.host import on_host
from mtrl.aggregators.solvers import minimize_quadratic, unit_system
from mtrl.aggregators.system import Aggregation, GradientSystem


class DualProj(WeightedAggregator):
    """Project the weighted mean of the task gradients onto the cone of directions that agree with every one of them.

    The weights are v = argmin v^T G~ v over v >= w, with G~ = G / trace(G) + reg_eps I. Up to the regularisation
    J d >= 0; exactly G~ v >= 0. Without conflict the direction is the mean.

    Source: Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, in the form of Quinton,
    Rey, "Jacobian Descent for Multi-Objective Optimization", 2024. Differs from TorchJD, which returns the plain mean
    where the Jacobian's Frobenius norm is below 0.01; here nothing depends on the scale.

    Cost: one quadratic problem between the tasks: 1 to 9 factorisations of T^3 or, where gradients depend
    on one another, up to 35.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """DualProj (Lopez-Paz, Ranzato 2017): mean gradient without its conflicts."""

        weights: tuple[float, ...] | None = None
        """Weight of each task in the mean, used as given; by default 1/T each."""
        reg_eps: float = 1e-4
        """Added to the diagonal of the Gramian of trace 1; smaller removes conflicts more strictly and follows the
        shortest gradients less stably."""

        def __post_init__(self) -> None:
            """Check what does not depend on the number of tasks."""
            check_task_weights(self.weights)
            check_reg_eps(self.reg_eps)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the projected weights."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        return Aggregation(project(system.gramian, self.task_weights, self.config.reg_eps))


@on_host
def project(
    gramian: Float[Tensor, "task task"], weights: Float[Tensor, "*batch task"], reg_eps: float
) -> Float[Tensor, "*batch task"]:
    """Return argmin v^T G~ v over v >= weights, for several combinations of the gradients at once.

    The unknown is v - weights, scaled by the largest weight. A zero gradient gets weight 0.

    Source: Quinton, Rey 2024, proposition 1.
    """
    trace = gramian.trace()
    identity = torch.eye(len(gramian), dtype=gramian.dtype, device=gramian.device)
    normalized = gramian / torch.where(trace > 0, trace, 1.0) + reg_eps * identity
    scale = weights.amax()
    shift = minimize_quadratic(normalized, weights / scale @ normalized)
    return (weights + scale * shift) * unit_system(gramian).is_nonzero


def check_reg_eps(reg_eps: float) -> None:
    """Raise a ValueError unless the regularisation keeps the problem solvable in float64."""
    if not 1e-12 <= reg_eps < 1:
        raise ValueError(f"reg_eps must lie between 1e-12 and 1, got {reg_eps}")
