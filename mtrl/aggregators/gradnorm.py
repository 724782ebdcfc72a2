"""GradNorm: task weights trained so that all tasks' gradients have the length their progress calls for."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl.aggregators.adam import AdamVector
from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.solvers import unit_system
from mtrl.aggregators.system import Aggregation, GradientSystem

_SUM_EPS = 1e-8  # added to the sum of the weights, as in the public code
_LOWEST = 1e-8  # of the raw weights, which start at 1


class GradNorm(Aggregator):
    """Train one weight per task so that the weighted gradients' lengths follow the tasks' relative training rates.

    With r_i = (L_i / L_i(0)) / mean_j(L_j / L_j(0)) the target of w_i ||g_i|| is mean_j(w_j ||g_j||) r_i^alpha; the
    weights follow the slope of the absolute deviations by Adam. alpha = 0 makes the lengths equal and ignores the
    losses; alpha > 0 needs positive ones.

    Source: Chen, Badrinarayanan, Lee, Rabinovich, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
    Multitask Networks", ICML 2018, equations 1 and 2. The weights sum to 1, where the paper's sum to T. A zero gradient
    gets weight 0 and does not enter the mean. Differs from the public codes, in which a weight that Adam takes to zero
    stays there: here none falls below 1e-8, so that it can return. Differs from the one for RL, which forgets L(0) in
    every call, and from torch's Adam by having no epsilon, so that nothing depends on the gradients' common scale.

    Cost: T; only the diagonal of the Gramian is looked at.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """GradNorm (Chen et al. 2018): weights trained to balance the gradients' lengths."""

        alpha: float = 0.0
        """Strength of the pull towards equal training rates; 0 for equal lengths, 0.12 to 1.5 in the paper."""
        lr: float = 1e-3
        """Adam's learning rate of the weights, which start at 1."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            if not 0 <= self.alpha < float("inf"):
                raise ValueError(f"alpha must be finite and not negative, got {self.alpha}")
            if not 0 < self.lr < float("inf"):
                raise ValueError(f"lr must be finite and positive, got {self.lr}")

    first_losses: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.needs_positive_losses = config.alpha > 0

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Start with equal weights and no losses seen."""
        super().setup(num_tasks, shapes, device)
        self.raw = AdamVector(num_tasks, device, lr=self.config.lr, eps=0.0)
        self.raw.values.fill_(1)
        self.register_buffer("first_losses", torch.zeros(num_tasks, dtype=torch.float64, device=device))

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the weights before they are trained on this update.

        Raises:
            ValueError: There are no losses, and alpha is not 0.
        """
        assert system.gramian is not None, "the need of this method is the Gramian"
        if system.losses is None and self.config.alpha > 0:
            raise ValueError(f"losses are needed for alpha = {self.config.alpha}; only alpha = 0 does without")
        _, norms, is_nonzero = unit_system(system.gramian)
        total = self.raw.values.sum() + _SUM_EPS
        weights = self.raw.values / total
        lengths = weights * norms * is_nonzero
        target = lengths.sum() / is_nonzero.sum().clamp(min=1) * self._relative_rates(system.losses, is_nonzero)
        slope = torch.sign(lengths - target) * norms * is_nonzero  # of the absolute deviations, by the weights
        self.raw.step((slope - slope @ weights) / total)  # by the raw weights, through weights = raw / total
        self.raw.values.clamp_(min=_LOWEST)
        return Aggregation(weights * is_nonzero)

    def _relative_rates(self, losses: Tensor | None, is_nonzero: Tensor) -> Tensor:
        """Return r^alpha; 1 without losses, and losses below 0 count as 0."""
        if losses is None:
            return torch.ones_like(self.first_losses)
        losses = losses.double()
        self.first_losses.copy_(torch.where(self.raw.step_count == 0, losses, self.first_losses))
        is_positive = self.first_losses > 0
        ratios = torch.where(is_positive, losses / torch.where(is_positive, self.first_losses, 1.0), 1.0).clamp(min=0)
        mean = (ratios * is_nonzero).sum() / is_nonzero.sum().clamp(min=1)
        return torch.where(mean > 0, ratios / torch.where(mean > 0, mean, 1.0), 1.0) ** self.config.alpha
