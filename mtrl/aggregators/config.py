"""ConFIG: the direction at chosen angles to all task gradients, as long as their projections onto it together."""

from dataclasses import dataclass

import torch

from mtrl.aggregators.base import Invariance, WeightedAggregator, check_task_weights
from mtrl.aggregators.solvers import solve_cosines, unit_system
from mtrl.aggregators.system import Aggregation, GradientSystem


class ConFIG(WeightedAggregator):
    """Take the direction that makes the same angle with all task gradients (conflict-free inverse gradients).

    x = pinv(U) w has <u_i, x> = w_i for independent unit gradients u_i, so it conflicts with none; dependent ones are
    matched in the least-squares sense, and their lengths may then turn the direction around. The direction is
    d = (sum_i <g_i, x^>) x^ with x^ = x / ||x||: the sum of the projections, not their mean.

    Source: Liu, Chu, Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025,
    equations 2 and 3, on the Gramian: x = U^T C^+ w, C the cosines. The variant with momenta (M-ConFIG) is another
    method. Differs from the official code by rounding only.

    Cost: T^3 for the eigenvalues of the cosines.
    """

    invariances = frozenset(Invariance)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """ConFIG (Liu et al. 2025): equal angles with all gradients."""

        weights: tuple[float, ...] | None = None
        """Cosine of each task with the direction, up to a common factor; by default equal."""

        def __post_init__(self) -> None:
            """Check what does not depend on the number of tasks."""
            check_task_weights(self.weights)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the weights of the rows that add up to d."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        cosines, norms, is_nonzero = unit_system(system.gramian)
        lengths = torch.where(is_nonzero, solve_cosines(cosines, self.task_weights * is_nonzero), 0.0)
        inner = cosines @ lengths  # <u_i, x>
        squared_norm = lengths @ inner
        projections = (norms * inner * is_nonzero).sum()  # sum_i <g_i, x>
        # A squared norm below rounding is that of gradients that cancel: x is noise.
        has_direction = squared_norm > 1e-12 * lengths.square().sum()
        factor = torch.where(has_direction, projections / torch.where(has_direction, squared_norm, 1.0), 0.0)
        return Aggregation(factor * lengths / norms)
