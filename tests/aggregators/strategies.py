"""Random Jacobians with everything that makes a gradient system hard, for properties of single methods."""

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from tests.aggregators.jacobians import gaussian

few = settings(max_examples=20, derandomize=True, deadline=None, database=None)


@st.composite
def jacobians(
    draw: st.DrawFn,
    sizes: tuple[int, ...] = (1, 2, 3, 10, 50),
    decades: tuple[int, ...] = (0, 2, 6),
    may_depend: bool = True,
    may_vanish: bool = True,
) -> Tensor:
    """Draw rows that may be dependent, duplicated, zero, in conflict, and of very different lengths.

    Args:
        sizes: Possible numbers of tasks.
        decades: Row lengths lie between 10^-d and 10^d for one of these d, so over twelve decades for d = 6.
        may_depend: Whether there may be fewer parameters than tasks, and duplicated rows.
        may_vanish: Whether rows may be zero.
    """
    num_tasks = draw(st.sampled_from(sizes))
    num_params = draw(st.sampled_from([num_tasks // 2 + 1, num_tasks, 2 * num_tasks + 3] if may_depend else [100]))
    rows = gaussian(num_tasks, num_params, draw(st.integers(0, 1000)))
    rows = rows - draw(st.sampled_from([0.0, 0.8])) * rows.mean(0) * (num_tasks > 1)  # 0.8: conflicts
    if may_depend and num_tasks > 1 and draw(st.booleans()):
        rows[0] = rows[-1]
    decade = draw(st.sampled_from(decades))
    rows = rows * torch.logspace(-decade, decade, num_tasks, dtype=torch.float64)[_shuffled(num_tasks)][:, None]
    if may_vanish and num_tasks > 1 and draw(st.booleans()):
        rows[num_tasks // 2] = 0
    return rows


def _shuffled(size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(size))
