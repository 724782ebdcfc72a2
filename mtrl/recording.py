"""Work that is the same every time is written down once, and then repeated without the Python that described it.

On a GPU the record is a CUDA graph, launched as a whole; on the CPU it is the list of torch's operations, without
`vmap`, autograd and the rest that led to them. What is solved on the CPU in between (`mtrl.aggregators.host`) stays a
call of its own. A record reads and writes the very tensors it was made with: whoever changes one of them, writes into
it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from mtrl.cuda_graphs import capture
from mtrl.operations import trace

Result = TypeVar("Result")

RUNS_BEFORE = {"cuda": 3, "cpu": 200}
"""Calls before a record is made: what is allocated or decided once is settled then, and short runs need none."""

CHECK_EVERY = 5_000
"""Calls between checks: a number in Python that changes late is found then."""

_NEVER = -1

LARGEST_DEVIATION = 0.05
"""Of what a call changes in any one tensor, on a GPU, where kernels may be chosen anew and sums ordered otherwise. On a
CPU there must be no deviation."""


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
        self._calls_left = RUNS_BEFORE[device.type] + 1 if is_recorded else _NEVER
        self._record: Callable[[], Result] | None = None
        self._calls_repeated = 0

    def __call__(self) -> Result:
        """Call the function, in whatever way."""
        if self._calls_left > 0 or self._record is None:
            self._calls_left -= self._calls_left > 0
            return self._make() if self._calls_left == 0 else self._function()
        self._calls_repeated += 1
        is_due = self._calls_repeated % CHECK_EVERY == 1
        return self._check(self._record) if is_due else self._record()

    def _make(self) -> Result:
        """Make the record of a call, which is a call too."""
        before = None
        try:
            before = self._copy()
            result, self._record = record(self._function, self._streams(), self._device)
        except Exception as problem:  # noqa: BLE001 - whatever it is, learning does not depend on it
            self._restore(before)
            return self._give_up(f"cannot be recorded: {problem!r}")
        return result

    def _check(self, repeat: Callable[[], Result]) -> Result:
        """Call both from the same state; go on from where the function leads."""
        before = None
        try:
            before = self._copy()
            found = [leaf.clone() for leaf in _tensors(repeat())]
            recorded = self._copy()
        except RuntimeError as problem:
            self._restore(before)
            return self._give_up(f"cannot be checked: {problem!r}")
        self._restore(before)
        result = self._function()
        if not all(map(torch.equal, recorded[1], [stream.get_state() for stream in self._streams()])):
            return self._give_up("draws other random numbers when it is repeated", result)
        nothing = [torch.zeros_like(leaf) for leaf in found]
        expected = [*self._tensors(), *_tensors(result)]
        deviation = _deviation([*before[0], *nothing], expected, [*recorded[0], *found])
        if not deviation <= (LARGEST_DEVIATION if self._device.type == "cuda" else 0.0):
            return self._give_up(f"comes out otherwise when it is repeated, by {deviation:.1g} of its change", result)
        return result

    def _give_up(self, reason: str, result: Result | None = None) -> Result:
        self._record, self._calls_left = None, _NEVER
        self._warn(f"{self._name} {reason.splitlines()[0][:300]}; it is computed step by step instead (--compile off)")
        return self._function() if result is None else result

    def _copy(self) -> tuple[list[Tensor], list[Tensor]]:
        return [leaf.clone() for leaf in self._tensors()], [stream.get_state() for stream in self._streams()]

    def _restore(self, state: tuple[list[Tensor], list[Tensor]] | None) -> None:
        if state is None:  # nothing has been called yet
            return
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
    """Return the length of found - expected relative to that of expected - before, of the tensor where it is largest.

    Numbers that are not finite count as if they were some large ones; integers and flags must be equal.
    """
    return max(map(_deviation_of_one, before, expected, found), default=0.0)


def _deviation_of_one(before: Tensor, expected: Tensor, found: Tensor) -> float:
    if torch.equal(found, expected):
        return 0.0
    if not expected.is_floating_point():
        return math.inf
    before, expected, found = (leaf.double().nan_to_num() for leaf in (before, expected, found))
    difference, change = float((found - expected).norm()), float((expected - before).norm())
    return difference / change if change else (math.inf if difference else 0.0)


def _tensors(tree: Any) -> list[Tensor]:
    """Return the tensors in a tree of tuples and dicts."""
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for part in (tree.values() if isinstance(tree, dict) else tree) for leaf in _tensors(part)]
