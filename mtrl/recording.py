"""Work that is the same every time is written down once, and then repeated without the Python that described it.

On a GPU the record is a CUDA graph, launched as a whole; on the CPU it is the list of torch's operations, without
`vmap`, autograd and the rest that led to them. What is solved on the CPU in between (`mtrl.aggregators.host`) stays a
call of its own. A record reads and writes the very tensors it was made with: whoever changes one of them, writes into
it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from mtrl.cuda_graphs import capture
from mtrl.operations import trace

Result = TypeVar("Result")

RUNS_BEFORE = {"cuda": 3, "cpu": 200}
"""Calls before a record is made: what is allocated or decided once is settled then, and short runs need none."""

_NEVER = -1

LARGEST_DEVIATION = 0.05
"""Of what a call changes, on a GPU, where kernels may be chosen anew and sums ordered otherwise. A record that draws
other random numbers, or has kept a number that changes, is off by about 1. On a CPU there must be no deviation."""


class Repeated(Generic[Result]):
    """A function without arguments that is recorded after some calls, checked in the next, and repeated from then on.

    The check calls function and record from the same state and compares all that they change. If they differ, or no
    record can be made, the function itself goes on being called, and a sentence says why.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[], Result],
        *,
        tensors: Callable[[], Sequence[Tensor]],
        streams: Callable[[], Sequence[torch.Generator]],
        device: torch.device,
        is_recorded: bool,
        warn: Callable[[str], None],
    ) -> None:
        """Take the function and what it changes.

        Args:
            name: What the function is, for a sentence.
            function: Called with no arguments; its result consists of tuples and dicts of tensors.
            tensors: Returns all tensors the function writes to and reads again.
            streams: Returns the random streams it draws from.
            device: Where it works.
            is_recorded: False for the function alone.
            warn: Told, in a sentence, why the function is not repeated.
        """
        self._name, self._function = name, function
        self._tensors, self._streams, self._device, self._warn = tensors, streams, device, warn
        self._calls_left = RUNS_BEFORE[device.type] if is_recorded else _NEVER
        self._record: Callable[[], Result] | None = None
        self._is_checked = False

    def __call__(self) -> Result:
        """Call the function, in whatever way."""
        if self._record is not None and self._is_checked:
            return self._record()
        if self._calls_left > 0:
            self._calls_left -= 1
            return self._function()
        if self._calls_left == _NEVER:
            return self._function()
        return self._make() if self._record is None else self._check(self._record)

    def _make(self) -> Result:
        """Make the record of a call, which is a call too."""
        before = self._copy()
        try:
            result, self._record = record(self._function, self._streams(), self._device)
        except (RuntimeError, TypeError, ValueError) as problem:
            self._restore(before)
            return self._give_up(f"cannot be recorded: {problem!r}")
        return result

    def _check(self, repeat: Callable[[], Result]) -> Result:
        """Call both from the same state; go on from where the function leads."""
        before = self._copy()
        found = [leaf.clone() for leaf in _tensors(repeat())]
        recorded = self._copy()
        self._restore(before)
        result = self._function()
        expected = self._copy()
        deviation = max(_deviation(before[0], expected[0], recorded[0]), _deviation([], _tensors(result), found))
        if not all(torch.equal(a, b) for a, b in zip(expected[1], recorded[1], strict=True)):
            return self._give_up("draws other random numbers when it is repeated", result)
        if not deviation <= (LARGEST_DEVIATION if self._device.type == "cuda" else 0.0):
            return self._give_up(f"comes out otherwise when it is repeated, by {deviation:.1g} of its change", result)
        self._is_checked = True
        return result

    def _give_up(self, reason: str, result: Result | None = None) -> Result:
        self._record, self._calls_left = None, _NEVER
        self._warn(f"{self._name} {reason.splitlines()[0][:300]}; it is computed step by step instead (--compile off)")
        return self._function() if result is None else result

    def _copy(self) -> tuple[list[Tensor], list[Tensor]]:
        return [leaf.clone() for leaf in self._tensors()], [stream.get_state() for stream in self._streams()]

    def _restore(self, state: tuple[list[Tensor], list[Tensor]]) -> None:
        for leaf, value in zip(self._tensors(), state[0], strict=True):
            leaf.copy_(value)
        for stream, value in zip(self._streams(), state[1], strict=True):
            stream.set_state(value)


def record(
    function: Callable[[], Result], streams: Sequence[torch.Generator], device: torch.device
) -> tuple[Result, Callable[[], Result]]:
    """Call the function, and return its result and its record, unchecked."""
    return (capture if device.type == "cuda" else trace)(function, streams)


def _deviation(before: Sequence[Tensor], expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Return the length of expected - found relative to that of expected - before, 0 where nothing differs.

    Without anything before, relative to expected itself.
    """
    difference = _distance(expected, found)
    before = before or [torch.zeros_like(leaf) for leaf in expected]
    return difference / _distance(expected, before) if difference else 0.0


def _distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Return the length of the difference; of numbers that are not finite, only where they stand counts."""
    lengths = [(a.double().nan_to_num() - b.double().nan_to_num()).norm() for a, b in zip(first, second, strict=True)]
    return float(torch.stack(lengths).norm()) if lengths else 0.0


def _tensors(tree: Any) -> list[Tensor]:
    """Return the tensors in a tree of tuples and dicts."""
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for part in (tree.values() if isinstance(tree, dict) else tree) for leaf in _tensors(part)]
