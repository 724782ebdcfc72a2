"""Ways of combining the gradients of several tasks into one direction.

    from mtrl.aggregators import make, names

    aggregator = make("aligned", scale_mode="min")
    direction = aggregator(jacobian)  # (task, param) -> (param,), to be descended

One file per method; a new one needs that file and one line below.
"""

from typing import TYPE_CHECKING

from mtrl.registry import resolve

if TYPE_CHECKING:
    from mtrl.aggregators.base import Aggregator

__all__ = ["REGISTRY", "make", "names"]

REGISTRY = {
    "aligned": "mtrl.aggregators.aligned:Aligned",
    "aligned_ub": "mtrl.aggregators.aligned_ub:AlignedUB",
    "dibs": "mtrl.aggregators.dibs:DiBS",
    "it_mtl": "mtrl.aggregators.it_mtl:ITMTL",
    "mean": "mtrl.aggregators.mean:Mean",
    "pcgrad": "mtrl.aggregators.pcgrad:PCGrad",
}


def names() -> tuple[str, ...]:
    """Return the names of all registered methods."""
    return tuple(REGISTRY)


def make(name: str, **options: object) -> "Aggregator":
    """Build the method `name`; `options` are the fields of its `Config`.

    Raises:
        ValueError: The name is unknown (the message lists the choices), or an option's value is out of range.
        TypeError: The method has no such option.
    """
    method = resolve(REGISTRY, "aggregator", name)
    return method(method.Config(**options))
