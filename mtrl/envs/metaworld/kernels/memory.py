"""How compiled code finds the numbers of an environment, and how it calls functions that are not Python's.

The numbers stay where they are, most of them in MuJoCo's own memory. `pack` lists where: two words for an array, its
address and its length, and one for a number, the number itself.
"""

import typing
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import UInt64
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

Words = UInt64[np.ndarray, " word"]

_WORD = ir.IntType(64)


def pack(*groups: Sequence[float | np.ndarray]) -> Words:
    """Return where the items of some named tuples are, for `unpacker`. The arrays must outlive the use of it."""
    words: list[int] = []
    for item in (item for group in groups for item in group):
        if isinstance(item, np.ndarray):
            words += item.ctypes.data, item.size
        else:
            words.append(int(np.float64(item).view(np.uint64)))
    return np.array(words, np.uint64)


def num_words(*classes: type) -> int:
    """Return how many words `pack` makes of such named tuples."""
    hints = (hint for cls in classes for hint in typing.get_type_hints(cls).values())
    return sum(1 if hint is float else 2 for hint in hints)


def unpacker(*classes: type) -> Callable[[int], Any]:
    """Return a function for compiled code: address of what `pack` returned -> tuple of these named tuples.

    Args:
        classes: Named tuples of floats and contiguous arrays; the annotations say of which numbers, float64 if several.
    """
    groups = [types.NamedTuple([_type(hint) for hint in typing.get_type_hints(cls).values()], cls) for cls in classes]
    result = types.Tuple(groups)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        words = builder.inttoptr(arguments[0], _WORD.as_pointer())
        places = iter(range(10_000))

        def next_word() -> Any:
            return builder.load(builder.gep(words, [_WORD(next(places))]))

        def next_item(kind: Any) -> Any:
            if kind == types.float64:
                return builder.bitcast(next_word(), ir.DoubleType())
            array = make_array(kind)(context, builder)
            data = builder.inttoptr(next_word(), array.data.type)
            size = _WORD(kind.dtype.bitwidth // 8)
            populate_array(array, data=data, shape=[next_word()], strides=[size], itemsize=size, meminfo=None)
            return array._getvalue()  # noqa: SLF001 - so Numba's own code does

        values = [context.make_tuple(builder, group, [next_item(kind) for kind in group.types]) for group in groups]
        return context.make_tuple(builder, result, values)

    @intrinsic
    def unpack(context: Any, address: Any) -> Any:
        del context, address
        return result(types.uint64), generate

    return cast("Callable[[int], Any]", unpack)


def _type(hint: Any) -> types.Type:
    if hint is float:
        return types.float64
    names = getattr(hint, "dtypes", ())
    return types.Array(getattr(types, names[0]) if len(names) == 1 else types.float64, 1, "C")


def _generate_call(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    del signature
    function = ir.FunctionType(ir.VoidType(), [_WORD] * (len(arguments) - 1))
    builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
    return context.get_dummy_value()


@intrinsic
def _call(context: Any, function: Any, argument: Any) -> Any:
    del context, function, argument
    return types.void(types.uint64, types.uint64), _generate_call


@intrinsic
def _call_with_two(context: Any, function: Any, first: Any, second: Any) -> Any:
    del context, function, first, second
    return types.void(types.uint64, types.uint64, types.uint64), _generate_call


@intrinsic
def _transfer(context: Any, function: Any, descriptor: Any, address: Any, size: Any) -> Any:
    del context, function, descriptor, address, size

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        function = ir.FunctionType(_WORD, [_WORD] * 4)
        return builder.call(builder.inttoptr(arguments[0], function.as_pointer()), [*arguments[1:], _WORD(0)])

    return types.int64(*[types.uint64] * 4), generate


@intrinsic
def _fused_multiply_add(context: Any, a: Any, b: Any, c: Any) -> Any:
    del context, a, b, c

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


call = cast("Callable[[int, int], None]", _call)
"""Call the function at an address with one word."""

call_with_two = cast("Callable[[int, int, int], None]", _call_with_two)
"""Call the function at an address with two words."""

transfer = cast("Callable[[int, int, int, int], int]", _transfer)
"""Call `send` or `recv` at an address: (function, descriptor, address, size) -> bytes transferred, below 0 for none."""

fused_multiply_add = cast("Callable[[float, float, float], float]", _fused_multiply_add)
"""Return a * b + c, rounded once."""
