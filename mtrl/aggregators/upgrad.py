"""UPGrad: each task gradient projected onto the directions that conflict with no task, then averaged."""

from dataclasses import dataclass

import torch

from mtrl.aggregators.base import WeightedAggregator, check_task_weights
from mtrl.aggregators.dualproj import check_reg_eps, project
from mtrl.aggregators.system import Aggregation, GradientSystem


class UPGrad(WeightedAggregator):
    """Project each task gradient onto the cone of directions that agree with every task, and average the results.

    Gradient i becomes J^T v_i, v_i = argmin v^T G~ v over v >= e_i, with G~ = G / trace(G) + reg_eps I. Up to the
    regularisation each of them, and so the direction J^T sum_i w_i v_i, agrees with every task. It is linear under the
    scaling of a gradient that is in no conflict, and without conflict it is the mean.

    Source: Quinton, Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, section 3. Differs from TorchJD,
    which returns the plain mean where the Jacobian's Frobenius norm is below 0.01; here nothing depends on the scale.

    Cost: T quadratic problems between the tasks, solved at once: 1 to 9 factorisations of T^3 each, or
    up to 35.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """UPGrad (Quinton, Rey 2024): mean of the gradients, each without its conflicts."""

        weights: tuple[float, ...] | None = None
        """Weight of each task in the mean, used as given; by default 1/T each."""
        reg_eps: float = 1e-4
        """Added to the diagonal of the Gramian of trace 1 (the published value); smaller removes conflicts more
        strictly and follows the shortest gradients less stably."""

        def __post_init__(self) -> None:
            """Check what does not depend on the number of tasks."""
            check_task_weights(self.weights)
            check_reg_eps(self.reg_eps)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the weighted sum of the projected gradients' coefficients, and the coefficients as mixing."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        single_tasks = torch.ones_like(self.task_weights).diag()
        coefficients = project(system.gramian, single_tasks, self.config.reg_eps)
        return Aggregation(weights=self.task_weights @ coefficients, mixing=coefficients)
