"""IMTL-G: the direction whose projections onto all task gradients are equal."""

from dataclasses import dataclass

import torch

from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.solvers import solve_cosines, unit_system
from mtrl.aggregators.system import Aggregation, GradientSystem

_SMALLEST_SUM = 1e-12  # of the weights before they are made to sum to 1, relative to their size


class IMTLG(Aggregator):
    """Make the projections of the direction onto all unit task gradients equal (impartial learning, gradient part).

    The weights a sum to 1, may be negative, and make <d, u_i> the same for every task. The line it lies
    on does not depend on the gradients' lengths, its length follows the shortest. With three tasks and more the lengths
    decide to which end of the line it points: the common projection can be negative, and is large where the weights'
    sum was nearly zero. The rule does not know up from down.

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, equation 6, with a = v / sum(v) where v_i =
    y_i / n_i, C y = 1 and C holds the cosines. Differs from the official code for dependent gradients, which take the
    shortest least-squares y where it divides by a singular matrix, and for a zero gradient, which gets weight 0 where
    it returns NaN.

    Cost: T^3 for the eigenvalues of the cosines.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """IMTL-G (Liu et al. 2021): equal projections onto all gradients."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the weights of equal projections; they sum to 1, or are 0 where none do."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        cosines, norms, is_nonzero = unit_system(system.gramian)
        weights = solve_cosines(cosines, is_nonzero.to(cosines)) / norms * is_nonzero
        total = weights.sum()
        has_sum = total.abs() > _SMALLEST_SUM * weights.abs().sum()
        return Aggregation(torch.where(has_sum, weights / torch.where(has_sum, total, 1.0), 0.0))
