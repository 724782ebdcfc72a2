"""CUDA graphs on the CPU, as far as `mtrl.cuda_graphs` can see: recorded operations write where they wrote before.

Between `capture_begin` and `capture_end` every operation of torch is written down; `replay` computes it again from the
same tensors into the same tensors. What the operations changed while they were written down, the caller puts back: a
GPU would not have computed them.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[Any, Any, dict[str, Any], Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if operation is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        self.all.append((operation, args, kwargs, result))
        return result


class Graph:
    """In place of `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self._operations = _Operations()
        self.streams: list[torch.Generator] = []

    def register_generator_state(self, stream: torch.Generator) -> None:
        self.streams.append(stream)

    def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
        assert pool == "pool"
        assert capture_error_mode == "thread_local"
        self._operations.__enter__()

    def capture_end(self) -> None:
        self._operations.__exit__(None, None, None)

    @torch.no_grad()
    def replay(self) -> None:
        for operation, args, kwargs, result in self._operations.all:
            if torch.Tag.inplace_view in operation.tags:  # changes a shape, once
                continue
            if isinstance(stream := kwargs.get("generator"), torch.Generator):
                assert identity(stream) in map(identity, self.streams), "draws from a stream that was not registered"
            again = operation(*args, **kwargs)
            for old, new in zip(pytree.tree_leaves(result), pytree.tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr() and old.numel():
                    old.copy_(new.reshape(old.shape))


def identity(stream: Any) -> int:
    """Return what tells a stream from others, whichever object stands for it."""
    return stream._cdata


class Stream:
    """In place of `torch.cuda.Stream`; counts how often it is waited for."""

    waits = 0

    def wait_stream(self, other: "Stream") -> None:
        assert isinstance(other, Stream)

    def synchronize(self) -> None:
        Stream.waits += 1


def install(monkeypatch: Any) -> type[Stream]:
    """Let `mtrl.cuda_graphs` record on the CPU; return where waits are counted."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: "default")
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr("mtrl.cuda_graphs._pinned", torch.empty_like)
    monkeypatch.setattr(Stream, "waits", 0)
    return Stream
