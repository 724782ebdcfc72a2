"""Moving averages of the task gradients."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mtrl.aggregators.system import Rows, chunks, combine


class RowAverages(nn.Module):
    """A moving average of every task's gradient, leaf by leaf, that starts at zero.

    In float64, so that directions do not depend on the dtype of the rows: 8 bytes times tasks times parameters.
    """

    step_count: Tensor

    def __init__(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        super().__init__()
        self.register_buffer("step_count", torch.zeros((), dtype=torch.float64, device=device))
        self.num_leaves = len(shapes)
        for index, shape in enumerate(shapes):
            self.register_buffer(f"leaf_{index}", torch.zeros(num_tasks, *shape, dtype=torch.float64, device=device))

    @property
    def rows(self) -> Rows:
        """The averages, each (task, *shape)."""
        return tuple(self.get_buffer(f"leaf_{index}") for index in range(self.num_leaves))

    def count(self) -> Float[Tensor, ""]:
        """Begin another update and return its number, from 1."""
        return self.step_count.add_(1)

    @torch.no_grad()
    def move(self, rows: Rows, scales: Float[Tensor, " task"], share: Float[Tensor, ""]) -> None:
        """Move the averages towards the rows times `scales` by `share` of the distance."""
        for average, leaf in zip(self.rows, rows, strict=True):
            for part, chunk in zip(chunks(average), chunks(leaf), strict=True):
                part.lerp_(scales[:, None] * chunk, share)

    def combine(self, weights: Float[Tensor, " task"], like: Rows) -> Rows:
        """Sum the averages with `weights`, leaf by leaf, in the dtype of the rows `like`."""
        total = combine(self.rows, weights)
        return tuple(leaf.to(row.dtype) for leaf, row in zip(total, like, strict=True))


def norms(rows: Sequence[Tensor]) -> Float[Tensor, " task"]:
    """Return the length of every task's gradient, in float64."""
    parts = [torch.linalg.vector_norm(chunk, dim=1, dtype=torch.float64) for leaf in rows for chunk in chunks(leaf)]
    return torch.linalg.vector_norm(torch.stack(parts), dim=0)


def quotient(numerator: Tensor, denominator: Float[Tensor, " task"]) -> Float[Tensor, " task"]:
    """Return numerator / denominator, and 0 where the denominator is 0."""
    return torch.where(denominator > 0, numerator / denominator, 0.0)
