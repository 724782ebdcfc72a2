"""Scale-invariant loss: descend the logarithms of the losses."""

from dataclasses import dataclass

from mtrl.aggregators.base import Aggregator, Invariance, Need
from mtrl.aggregators.losses import EPS, read_losses
from mtrl.aggregators.system import Aggregation, GradientSystem


class ScaleInvariant(Aggregator):
    """Descend the mean over tasks of log L_i: the weights are 1 / (T L_i).

    The unit in which a loss is measured does not matter. It is the same as descending the geometric mean of the losses,
    up to the length of the step.

    Needs positive losses: one below 1e-8 counts as 1e-8.

    Source: the "SI" baseline of Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, section 5. Differs
    from its code, which sums over tasks (T times this), and from Samsung's, which takes log(1 + L).

    Cost: nothing beyond.
    """

    need = Need.LOSSES
    needs_positive_losses = True
    invariances = frozenset({Invariance.LOSS_SCALES})

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Scale-invariant (Navon et al. 2022): the mean of the logarithms of the losses."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return 1 / (T L)."""
        losses = read_losses(system.losses).clamp(min=EPS)
        return Aggregation(1 / (system.num_tasks * losses))
