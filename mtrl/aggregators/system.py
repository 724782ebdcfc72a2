"""The gradient system of one update, and the two functions that touch its parameter axis."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.host import on_host
from mtrl.precision import unrounded_products

Rows = tuple[Tensor, ...]
"""The Jacobian of the task losses, leaf by leaf: each (task, *shape of the parameter). Never concatenated."""

LossesAhead = Callable[[Tensor], Tensor]
"""From steps, (candidate, task), to losses, (candidate, task): the same frozen losses after the shared parameters have
moved by minus the sum of steps[c, i] times the gradient of task i."""

# Columns converted to float64 at once, times the number of tasks. A core's cache holds 2 MiB; a GPU wants work enough
# for every launch, here 32 MiB.
_CHUNK_ELEMENTS, _CHUNK_ELEMENTS_ON_GPU = 2**18, 2**22


class GradientSystem(NamedTuple):
    """What an aggregator may look at. Fields that its `need` does not cover are None."""

    num_tasks: int
    losses: Float[Tensor, " task"] | None = None
    gramian: Float[Tensor, "task task"] | None = None
    """Inner products of the task gradients in float64, symmetric; those of the representation where that is needed."""
    rows: Rows | None = None
    generator: torch.Generator | None = None
    """Source of all randomness a method may use."""
    losses_ahead: LossesAhead | None = None
    """The losses at other parameters."""
    losses_after_step: LossesAhead | None = None
    """The same after the optimiser's next step, were its gradient the sum of steps[c, i] times that of task i."""


class Aggregation(NamedTuple):
    """What an aggregator decided. The direction is descended, so it points like a gradient."""

    weights: Float[Tensor, " task"] | None
    """The direction is the sum of weights[i] times row i; None only where `direction` is given."""
    mixing: Float[Tensor, "task task"] | None = None
    """Where the method first replaces the rows J by M J, this M; the condition number after alignment comes from it."""
    direction: Rows | None = None
    """The direction leaf by leaf, from methods that are no weighting of the rows."""


def gramian(rows: Sequence[Tensor]) -> Float[Tensor, "task task"]:
    """Compute the inner products of all task gradients, accumulated in float64.

    A float32 Gramian has lost everything above a condition number of about 1000 (relative error of the Aligned-MTL
    direction for ten tasks and 0.35M parameters: 1% at 100, 80% at 1000; scripts/gramian_precision.py), so the products
    are formed in float64, a few columns at a time.

    Args:
        rows: Per parameter the gradients of all tasks, (task, *shape).
    """
    num_tasks = rows[0].shape[0]
    total = rows[0].new_zeros(num_tasks, num_tasks, dtype=torch.float64)
    for leaf in rows:
        for chunk in chunks(leaf):
            _add_products(total, chunk.double())
    return total


def _add_products(total: Float[Tensor, "task task"], columns: Float[Tensor, "task column"]) -> None:
    """Add the inner products over some columns; a function, so that these are freed before the next are converted."""
    total.addmm_(columns, columns.T)


def chunks(leaf: Float[Tensor, "task *shape"]) -> Sequence[Float[Tensor, "task column"]]:
    """Cut a leaf into views of a few columns each, to be converted to float64 one after the other."""
    elements = _CHUNK_ELEMENTS if leaf.device.type == "cpu" else _CHUNK_ELEMENTS_ON_GPU
    columns = max(1, elements // len(leaf))
    return leaf[:, None].flatten(1).split(columns, dim=1)  # a scalar parameter's leaf is (task,)


def combine(rows: Sequence[Tensor], weights: Float[Tensor, " task"]) -> Rows:
    """Sum the task gradients with `weights`.

    Gradients may come from rounded products, but large weights of opposite sign would multiply what is rounded here.

    Args:
        rows: Per parameter the gradients of all tasks, (task, *shape).
        weights: One weight per task; cast to the dtype of each leaf.

    Returns:
        The weighted sum, leaf by leaf, each (*shape).
    """
    row = {dtype: weights.to(dtype)[None] for dtype in {leaf.dtype for leaf in rows}}
    with unrounded_products():
        return tuple((row[leaf.dtype] @ leaf.reshape(len(leaf), -1)).view(leaf.shape[1:]) for leaf in rows)


@on_host
def condition_number(gramian: Float[Tensor, "task task"]) -> Float[Tensor, ""]:
    """Return the ratio of the largest to the smallest singular value of the Jacobian behind `gramian`.

    The stability criterion of Senushkin et al., "Independent Component Alignment for Multi-Task Learning", 2023,
    section 4. A task without gradient does not count. Other singular values below the resolution of the Gramian count
    as that resolution, so the result is finite: at most 1 / sqrt(T eps), about 2e7 for ten tasks in float64. It is 1
    for a zero Gramian, NaN for one with NaN.
    """
    is_finite = gramian.isfinite().all()
    squared = torch.where(is_finite, gramian, 0.0).diagonal()  # torch's solver raises on NaN
    filling = torch.where(squared == 0, squared.amax(), 0.0)  # an eigenvalue between the others
    eigenvalues = torch.linalg.eigvalsh(torch.where(is_finite, gramian, 0.0) + filling.diag())
    largest = eigenvalues[-1]
    floor = largest * gramian.shape[0] * torch.finfo(gramian.dtype).eps
    ratio = largest / torch.maximum(eigenvalues[0], floor)
    return torch.where(is_finite, torch.where(largest > 0, ratio, 1.0), torch.nan).sqrt()


def magnitude_similarity(gramian: Float[Tensor, "task task"]) -> Float[Tensor, ""]:
    """Return the mean over pairs of tasks of 2 n_i n_j / (n_i^2 + n_j^2), n_i the length of gradient i: 1 if equal.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", 2020, definition 2. A task without gradient does not
    count; without a pair it is 1.
    """
    squared = gramian.diagonal().clamp(min=0)
    similarity = 2 * (squared[:, None] * squared).sqrt() / (squared[:, None] + squared)
    has_both = (
        (squared > 0)[:, None] & (squared > 0) & ~torch.eye(len(squared), dtype=torch.bool, device=squared.device)
    )
    count = has_both.sum()
    return torch.where(count > 0, torch.where(has_both, similarity, 0.0).sum() / count.clamp(min=1), 1.0)


def cosines(gramian: Float[Tensor, "task task"]) -> Float[Tensor, "task task"]:
    """Return the cosine of the angle between each pair of task gradients; 0 where one of them is zero."""
    norms = gramian.diagonal().clamp(min=0).sqrt()
    scale = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
    return gramian * scale[:, None] * scale[None, :]
