"""Aligned-MTL-UB: align the gradients of the representation that all tasks share, instead of the parameters'."""

from dataclasses import dataclass

from mtrl.aggregators.aligned import ScaleMode, balance_matrix
from mtrl.aggregators.base import Need, WeightedAggregator, check_task_weights
from mtrl.aggregators.system import Aggregation, GradientSystem


class AlignedUB(WeightedAggregator):
    """Align the task gradients of the encoder's output H (Aligned-MTL-UB).

    With Z the gradients dL_i/dH in rows and B the balance matrix of Z Z^T, the encoder is descended along the pullback
    of w^T B Z: it takes one backward pass through the encoder, not T. Aligning Z bounds the gradients of the encoder's
    parameters from above up to the Jacobian of the encoder, which all tasks share. Heads follow their own gradient.
    Needs a network that names its encoder and heads. On a Jacobian, the rows given are Z and the result is the
    cotangent to send back through the encoder.

    It degenerates in reinforcement learning: there each task sees transitions of its own, so Z_i is zero but on the
    rows of task i, Z Z^T is diagonal, and B = min_j |Z_j| diag(1 / |Z_i|) only makes the gradients equally long. The
    conflicts between tasks, which arise in the encoder's parameters, are not seen. Where all tasks share their inputs,
    as in supervised scene understanding, it is the method of the paper.

    Source: Senushkin, Patakin, Kuznetsov, Konushin, "Independent Component Alignment for Multi-Task Learning", CVPR
    2023, section 4.3. Differs from the official code, which ignores w and sums the aligned rows (T times ours at w =
    1/T).

    Cost: T^3 for the eigenvalues; the gradients of H have the size of the batch, not of the parameters.
    """

    need = Need.REPRESENTATION

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Aligned-MTL-UB (Senushkin et al. 2023): aligns the gradients of the shared representation."""

        scale_mode: ScaleMode = "min"
        """Common length s of the aligned gradients: the smallest singular value (the paper), the lower median, or the
        root mean square of all."""
        weights: tuple[float, ...] | None = None
        """Weight of each task, used as given; by default 1/T each."""
        rank_eps: float | None = None
        """Eigenvalues below the largest one times T times this count as zero; by default the Gramian's own precision
        (2.2e-16), and no more than the gradients' directions are independent of one another in float32."""

        def __post_init__(self) -> None:
            """Check what does not depend on the number of tasks."""
            check_task_weights(self.weights)
            if self.rank_eps is not None and not 0 < self.rank_eps < 1:
                raise ValueError(f"rank_eps must lie between 0 and 1, got {self.rank_eps}")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return B w as weights and B as mixing."""
        assert system.gramian is not None, "the need of this method is the representation's Gramian"
        balance = balance_matrix(system.gramian, self.config.scale_mode, self.config.rank_eps)
        return Aggregation(weights=balance @ self.task_weights, mixing=balance)
