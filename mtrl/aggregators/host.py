"""Problems between the tasks are solved on the CPU, wherever the gradients are.

They are small and take hundreds of operations, one after the other: on a GPU each would be a kernel of its own, and
cost more than the whole update. Two small transfers, of the Gramian there and of the weights back, cost less.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

Solver = Callable[..., Any]
"""A function of tensors and constants that returns a tensor or a tuple of them."""


@runtime_checkable
class Recorder(Protocol):
    """Writes down work of the device, to repeat it; what is done on the CPU in between is given to it."""

    def call(self, solver: Solver, arguments: tuple[Any, ...]) -> Any:
        """Return the tensors in which the result will be, on the device, each time the work is repeated."""
        ...


_recorders: list[Recorder | None] = [None]


@contextmanager
def recorded_by(recorder: Recorder | None) -> Iterator[None]:
    """Give what the body does on the CPU, by functions that are `on_host`, to the recorder; None: let it be done."""
    _recorders.append(recorder)
    try:
        yield
    finally:
        _recorders.pop()


def on_host(solver: Solver) -> Solver:
    """Let a function compute on the CPU and return its result on the device of its first tensor.

    Tensors elsewhere are waited for. The function may look at values, and must return new tensors of float64.
    """

    @functools.wraps(solver)
    def call(*arguments: Any) -> Any:
        if (recorder := _recorders[-1]) is not None:
            return recorder.call(solver, arguments)
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        if device.type == "cpu":
            return solver(*arguments)
        result = solver(*_to(torch.device("cpu"), arguments))
        return _to(device, result)

    return call


def _to(device: torch.device, values: Any) -> Any:
    """Return the tensors among the values on the device."""
    if isinstance(values, tuple):
        return tuple(_to(device, value) for value in values)
    return values.to(device) if isinstance(values, Tensor) else values


def example(solver: Solver, arguments: tuple[Any, ...]) -> Any:
    """Return what the function makes of harmless numbers: its result has the shapes that any other will have."""
    with recorded_by(None):
        return solver(*(_harmless(value) if isinstance(value, Tensor) else value for value in arguments))


def _harmless(tensor: Tensor) -> Tensor:
    """Return the identity in place of a square matrix, and ones in place of others."""
    is_square = tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1]
    return torch.eye(len(tensor), dtype=tensor.dtype) if is_square else torch.ones(tensor.shape, dtype=tensor.dtype)
