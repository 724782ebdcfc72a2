"""The losses as the methods see them that look at them."""

import torch
from jaxtyping import Float
from torch import Tensor

EPS = 1e-8
"""What a loss counts as that is zero or negative, where a logarithm or a quotient is taken."""

_LARGEST = 1e100
"""Its square, and a sum of such squares, is still a number in float64."""


def read_losses(losses: Float[Tensor, " task"] | None) -> Float[Tensor, " task"]:
    """Return the losses in float64, detached, and bounded by 1e100 on both sides.

    Raises:
        ValueError: The caller passed none.
    """
    if losses is None:
        raise ValueError("losses are missing: this method weighs tasks by their losses, call it with losses=...")
    return losses.detach().to(torch.float64).clamp(-_LARGEST, _LARGEST)
