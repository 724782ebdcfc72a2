"""Numbers that a method learns for itself, one per task."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_DECAY, _SQUARE_DECAY = 0.9, 0.999
"""The defaults of torch's Adam, which all official codes use."""


class AdamVector(nn.Module):
    """A vector that follows its gradients by Adam.

    Torch's own optimiser keeps its moments where `state_dict` of a method does not reach, and cannot be put back on the
    device after an update that is not finite. Here all state is buffers, in float64, written in place.

    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1; weight decay is added to
    the gradient, as in torch.optim.Adam.
    """

    values: Tensor
    average: Tensor
    average_square: Tensor
    step_count: Tensor

    def __init__(
        self,
        num_tasks: int,
        device: torch.device,
        *,
        lr: float,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        bound: float = float("inf"),
    ) -> None:
        """Start at zero; the values stay between -bound and bound. One that never had a slope stays, also at eps 0."""
        super().__init__()
        self.lr, self.eps, self.weight_decay, self.bound = lr, eps, weight_decay, bound
        for name in ("values", "average", "average_square"):
            self.register_buffer(name, torch.zeros(num_tasks, dtype=torch.float64, device=device))
        self.register_buffer("step_count", torch.zeros((), dtype=torch.float64, device=device))

    def step(self, gradient: Float[Tensor, " task"]) -> None:
        """Descend `gradient` by one step."""
        gradient = gradient + self.weight_decay * self.values
        self.step_count += 1
        self.average.lerp_(gradient, 1 - _DECAY)
        self.average_square.lerp_(gradient.square(), 1 - _SQUARE_DECAY)
        average = self.average / (1 - _DECAY**self.step_count)
        root = (self.average_square / (1 - _SQUARE_DECAY**self.step_count)).sqrt()
        step = torch.where(root > 0, average / (root + self.eps), 0.0)
        self.values.sub_(self.lr * step).clamp_(-self.bound, self.bound)
