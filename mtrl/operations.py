"""The record of a function on the CPU: the operations of torch it comes down to, in order."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.fx.experimental import proxy_tensor
from torch.utils import _pytree as pytree

from mtrl.aggregators.host import Mend, Solver, recorded_by, unless

Result = TypeVar("Result")


class _Calls:
    """Writes down what is solved in between as a call of its own, whose inside is not looked at."""

    def call(self, solver: Solver, arguments: tuple[Any, ...]) -> Any:
        mode = proxy_tensor.get_proxy_mode()
        assert mode is not None, "operations are being written down"
        proxies = pytree.tree_map(mode.tracer.unwrap_proxy, arguments)
        with recorded_by(None), proxy_tensor.disable_proxy_modes_tracing():
            result = solver(*arguments)
        node = mode.tracer.create_proxy("call_function", solver, proxies, {})
        return proxy_tensor.track_tensor_tree(result, node, constant=None, tracer=mode.tracer)

    def unless(self, flag: Bool[Tensor, ""], mend: Mend, arguments: tuple[Any, ...]) -> None:
        mode = proxy_tensor.get_proxy_mode()
        assert mode is not None, "operations are being written down"
        proxies = pytree.tree_map(mode.tracer.unwrap_proxy, (flag, *arguments))

        def mend_unless(flag: Tensor, *arguments: Any) -> None:
            unless(flag, mend, *arguments)

        with recorded_by(None), proxy_tensor.disable_proxy_modes_tracing():
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
        results.append(function())
        return results[-1]

    with recorded_by(_Calls()):
        module = proxy_tensor.make_fx(call, tracing_mode="real")()
    return results[0], module
