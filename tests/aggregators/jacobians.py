"""Jacobians that have, or lack, what a method may rely on."""

import torch
from torch import Tensor


def gaussian(num_tasks: int, num_params: int, seed: int = 0) -> Tensor:
    """Return independent rows of similar length."""
    return torch.randn(num_tasks, num_params, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(size: int, seed: int = 0) -> Tensor:
    """Return a random orthogonal matrix."""
    return torch.linalg.qr(gaussian(size, size, seed + 1000))[0]


def with_condition_number(num_tasks: int, num_params: int, condition: float, seed: int = 0) -> Tensor:
    """Return a Jacobian with singular values spread evenly in the logarithm between 1 and 1 / condition."""
    left = orthogonal(num_tasks, seed)
    right = torch.linalg.qr(gaussian(num_params, num_tasks, seed + 2000))[0].T
    exponents = torch.linspace(0, 1, num_tasks, dtype=torch.float64) if num_tasks > 1 else torch.zeros(1)
    return left @ torch.diag(condition ** -exponents.double()) @ right


FULL_RANK = {
    "two similar": gaussian(2, 3),
    "five similar": gaussian(5, 20),
    "ten similar": gaussian(10, 40),
    "two in conflict": torch.tensor([[1.0, 0.0, 0.5], [-1.0, 0.3, 0.2]], dtype=torch.float64),
    "ten, condition number 100": with_condition_number(10, 30, 100.0),
    "rows of length 0.01, 1 and 100": gaussian(3, 6) * torch.tensor([[0.01], [1.0], [100.0]], dtype=torch.float64),
}
"""Independent rows, well enough conditioned for a relative accuracy of 1e-9."""

DEGENERATE = {
    "one task": gaussian(1, 4),
    "more tasks than parameters": gaussian(10, 3),
    "fifty tasks in twenty parameters": gaussian(50, 20),
    "duplicated rows": gaussian(3, 8)[[0, 1, 1, 2, 0]],
    "duplicated rows of other lengths": gaussian(2, 8)[[0, 1, 0]] * torch.tensor([[1.0], [1.0], [30.0]]).double(),
    "opposite rows": torch.tensor([[1.0, -2.0, 3.0], [-1.0, 2.0, -3.0]], dtype=torch.float64),
    "sum is zero": torch.tensor([[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]], dtype=torch.float64),
    "zero row": gaussian(3, 8) * torch.tensor([[1.0], [0.0], [1.0]]).double(),
    "all zero": torch.zeros(3, 8, dtype=torch.float64),
    "rows over twelve decades": gaussian(10, 30) * torch.logspace(-6, 6, 10, dtype=torch.float64)[:, None],
    "rows over twelve decades, dependent": (gaussian(50, 20) * torch.logspace(-6, 6, 50).double()[:, None]),
    "tiny": 1e-12 * gaussian(10, 30),
    "huge": 1e12 * gaussian(10, 30),
}
"""Finite, and otherwise anything that a training run can produce."""
