"""The record of a function on the CPU: the operations of torch it comes down to, in order."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.fx.experimental import proxy_tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from mtrl.aggregators.host import Mend, Solver, compute, recorded_by, unless

Result = TypeVar("Result")


class _LookError(RuntimeError):
    """Python asked for a value, which would stand in the record for ever."""


class _Blindfold(TorchDispatchMode):
    """Refuses what hands the value of a tensor to Python: `make_fx` lets that pass for tensors made before."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if operation is torch.ops.aten._local_scalar_dense.default:  # noqa: SLF001 - its public name
            raise _LookError("it looks at the value of a tensor")
        return operation(*args, **(kwargs or {}))


class _Calls:
    """Writes down what is solved in between as a call of its own, whose inside is not looked at."""

    def call(self, solver: Solver, arguments: tuple[Any, ...]) -> Any:
        mode = proxy_tensor.get_proxy_mode()
        assert mode is not None, "operations are being written down"
        proxies = pytree.tree_map(mode.tracer.unwrap_proxy, arguments)
        with _disable_current_modes():
            result = compute(solver, arguments)
        node = mode.tracer.create_proxy("call_function", solver, proxies, {})
        return proxy_tensor.track_tensor_tree(result, node, constant=None, tracer=mode.tracer)

    def unless(self, flag: Bool[Tensor, ""], mend: Mend, arguments: tuple[Any, ...]) -> None:
        mode = proxy_tensor.get_proxy_mode()
        assert mode is not None, "operations are being written down"
        proxies = pytree.tree_map(mode.tracer.unwrap_proxy, (flag, *arguments))

        def mend_unless(flag: Tensor, *arguments: Any) -> None:
            unless(flag, mend, *arguments)

        with recorded_by(None), _disable_current_modes():
            mend_unless(flag, *arguments)
        mode.tracer.create_proxy("call_function", mend_unless, proxies, {})


def trace(function: Callable[[], Result], streams: Sequence[torch.Generator]) -> tuple[Result, Callable[[], Result]]:
    """Call the function once, and return its result and what does the same again.

    Args:
        function: Of no arguments; it must not look at values of tensors, except inside functions that are `on_host`.
        streams: Random streams it draws from; the record draws from them too.
    """
    del streams
    results: list[Result] = []

    def call() -> Result:
        with _Blindfold():
            results.append(function())
        return results[-1]

    with recorded_by(_Calls()):
        module = proxy_tensor.make_fx(call, tracing_mode="real")()
    return results[0], module
