"""Problems between the tasks are solved on the CPU, wherever the gradients are.

They are small and take hundreds of operations, one after the other: on a GPU each would be a kernel of its own, and
cost more than the whole update. Two small transfers, of the Gramian there and of the weights back, cost less.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

Solver = Callable[..., Any]
"""A function of tensors and constants that returns a tensor or a tuple of them."""

Mend = Callable[..., None]
"""A function of a flag and of tensors that writes to some of them, unless the flag is set."""


@runtime_checkable
class Recorder(Protocol):
    """Writes down work of the device, to repeat it; what is done on the CPU in between is given to it."""

    def call(self, solver: Solver, arguments: tuple[Any, ...]) -> Any:
        """Return the tensors in which the result will be, on the device, each time the work is repeated."""
        ...

    def unless(self, flag: Bool[Tensor, ""], mend: Mend, arguments: tuple[Any, ...]) -> None:
        """Let the function be called each time, at least where the flag is not set then."""
        ...


_recorders: list[Recorder | None] = [None]
"""The innermost `recorded_by` counts. Of the process, as torch's own modes are: a method does not know who calls it."""


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
        return compute(solver, arguments)

    return call


def compute(solver: Solver, arguments: tuple[Any, ...]) -> Any:
    """Compute now, on the CPU; return the result on the device of the first tensor."""
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    with recorded_by(None):
        return _to(device, solver(*_to(torch.device("cpu"), arguments)))


def unless(flag: Bool[Tensor, ""], mend: Mend, *arguments: Any) -> None:
    """Call a function that changes nothing where the flag is set: there it is left out, if that costs no waiting.

    Args:
        flag: The function's first argument.
        mend: A function of the flag and the other arguments; whatever tensors it reads or writes are among them.
        arguments: Tensors and lists of them.
    """
    if (recorder := _recorders[-1]) is not None:
        recorder.unless(flag, mend, arguments)
    elif flag.device.type != "cpu" or not flag:
        mend(flag, *arguments)


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
