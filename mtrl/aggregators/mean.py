"""The weighted mean of the task gradients: linear scalarisation."""

from dataclasses import dataclass

from mtrl.aggregators.base import Need, WeightedAggregator, check_task_weights
from mtrl.aggregators.system import Aggregation, GradientSystem


class Mean(WeightedAggregator):
    """Sum the task gradients with fixed weights, 1/T each by default: d = sum_i w_i g_i.

    It is what every method is compared with.

    Source: linear scalarisation, the gradient of the weighted total loss in the shared parameters; private ones follow
    their own task's loss. Differs from many official codes, which sum
    (T times this); Adam hides that, gradient clipping does not.

    Cost: nothing beyond.
    """

    need = Need.LOSSES

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Weighted mean of the task gradients."""

        weights: tuple[float, ...] | None = None
        """Weight of each task, used as given; by default 1/T each."""

        def __post_init__(self) -> None:
            """Check what does not depend on the number of tasks."""
            check_task_weights(self.weights)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the fixed weights."""
        del system
        return Aggregation(self.task_weights)
