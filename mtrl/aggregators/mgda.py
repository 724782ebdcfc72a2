"""MGDA: the shortest vector in the convex hull of the task gradients."""

from dataclasses import dataclass

from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.solvers import nearest_point, unit_system
from mtrl.aggregators.system import Aggregation, GradientSystem


class MGDA(Aggregator):
    """Descend along the min-norm point of the convex hull of the task gradients (multiple-gradient descent).

    w = argmin ||J^T w||^2 over w >= 0, sum(w) = 1. The direction d = J^T w agrees with every task, <g_i, d> >= ||d||^2,
    and is zero exactly where some convex combination of the gradients is: at Pareto-stationary points. It follows the
    shortest gradients.

    Source: Desideri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", 2012, and Sener,
    Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018. The problem is solved exactly. The
    official code clips its two-point steps to [0.001, 0.999], so that no task is ever left alone, and fails on
    gradients longer than 1e4; Frank-Wolfe codes stop up to 84% away. Differs from the definition for a zero gradient,
    which is left out here and would make the direction zero.

    Cost: one quadratic problem between the tasks: 1 to 9 factorisations of T^3 or, where gradients depend
    on one another, up to 35.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """MGDA (Sener, Koltun 2018): shortest vector in the convex hull of the gradients."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the weights of the shortest vector; they sum to 1."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        return Aggregation(nearest_point(system.gramian, unit_system(system.gramian).is_nonzero))
