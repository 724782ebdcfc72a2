"""The record of a function on a GPU: CUDA graphs, and the calls on the CPU between them."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

from mtrl.aggregators.host import Mend, Solver, compute, example, recorded_by

Result = TypeVar("Result")


class _Parts:
    """Cuts a function where something is solved on the CPU: graph, call, graph, ..., to be run in this order."""

    def __init__(self, streams: Sequence[torch.Generator]) -> None:
        self.run: list[Callable[[], Any]] = []
        self._streams = streams
        self._pool = torch.cuda.graph_pool_handle()
        self._graph: torch.cuda.CUDAGraph
        self.is_capturing = False

    def begin(self) -> None:
        """Let what follows go into a graph; nothing of it is computed."""
        self._graph = torch.cuda.CUDAGraph()
        for stream in self._streams:
            self._graph.register_generator_state(stream)
        self._graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        self.is_capturing = True

    def end(self) -> None:
        """End the graph."""
        self.is_capturing = False
        self._graph.capture_end()
        self.run.append(self._graph.replay)

    def call(self, solver: Solver, arguments: tuple[Any, ...]) -> Any:
        """Copy what is solved to the CPU at the end of one graph, and the solution back at the beginning of the next.

        Memory of the host that a graph reads or writes must be pinned, and stays where it is.
        """
        inputs = tuple(_pinned(value) if isinstance(value, Tensor) else value for value in arguments)
        for value, copy in zip(arguments, inputs, strict=True):
            if isinstance(value, Tensor):
                copy.copy_(value, non_blocking=True)
        self.end()
        solution = example(solver, arguments)
        outputs = tuple(map(_pinned, solution if isinstance(solution, tuple) else (solution,)))

        def solve() -> None:
            torch.cuda.current_stream().synchronize()
            found = solver(*inputs)
            for output, value in zip(outputs, found if isinstance(found, tuple) else (found,), strict=True):
                output.copy_(value)

        self.run.append(solve)
        self.begin()
        device = next(value.device for value in arguments if isinstance(value, Tensor))
        results = tuple(output.to(device, non_blocking=True) for output in outputs)
        return results if isinstance(solution, tuple) else results[0]

    def unless(self, flag: Bool[Tensor, ""], mend: Mend, arguments: tuple[Any, ...]) -> None:
        """Do it in any case: a graph does not look."""
        mend(flag, *arguments)


def capture(function: Callable[[], Result], streams: Sequence[torch.Generator]) -> tuple[Result, Callable[[], Result]]:
    """Call the function, record what it would launch then, and return its result and what launches that again.

    Args:
        function: Of no arguments; it must neither wait for the device nor read memory of the host, except inside
            functions that are `on_host`.
        streams: Random streams it draws from; the record draws from them too.
    """
    result = _call_without_waiting(function)
    parts = _Parts(streams)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    torch.cuda.synchronize()
    with torch.cuda.stream(side), recorded_by(parts):
        parts.begin()
        try:
            recorded = function()
        except BaseException:
            if parts.is_capturing:
                with suppress(RuntimeError):  # which would hide the reason
                    parts.end()
            raise
        parts.end()
    torch.cuda.current_stream().wait_stream(side)

    def repeat() -> Result:
        for run in parts.run:
            run()
        return recorded

    return result, repeat


class _Watched:
    """Lets what is `on_host` wait for the device."""

    def call(self, solver: Solver, arguments: tuple[Any, ...]) -> Any:
        with waiting("default"):
            example(solver, arguments)  # if it raises, then better before the capture
            return compute(solver, arguments)

    def unless(self, flag: Bool[Tensor, ""], mend: Mend, arguments: tuple[Any, ...]) -> None:
        mend(flag, *arguments)


def _call_without_waiting(function: Callable[[], Result]) -> Result:
    """Call the function.

    Raises:
        RuntimeError: It waits for the device. In a capture that would leave torch's memory in disorder.
    """
    with waiting("error"), recorded_by(_Watched()):
        return function()


@contextmanager
def waiting(mode: Literal["default", "error"]) -> Iterator[None]:
    """Let the body wait for the device, or raise where it does."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        _set_sync_debug_mode(mode)
        yield
    finally:
        _set_sync_debug_mode(before)


def _set_sync_debug_mode(mode: str | int) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")  # that it is a prototype
        torch.cuda.set_sync_debug_mode(mode)


def _pinned(like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, device="cpu", pin_memory=True)
