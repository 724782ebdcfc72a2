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
    "cagrad": "mtrl.aggregators.cagrad:CAGrad",
    "config": "mtrl.aggregators.config:ConFIG",
    "dualproj": "mtrl.aggregators.dualproj:DualProj",
    "fairgrad": "mtrl.aggregators.fairgrad:FairGrad",
    "gradnorm": "mtrl.aggregators.gradnorm:GradNorm",
    "gradvac": "mtrl.aggregators.gradvac:GradVac",
    "imtl_g": "mtrl.aggregators.imtl_g:IMTLG",
    "mean": "mtrl.aggregators.mean:Mean",
    "mgda": "mtrl.aggregators.mgda:MGDA",
    "nash": "mtrl.aggregators.nash:NashMTL",
    "pcgrad": "mtrl.aggregators.pcgrad:PCGrad",
    "sdmgrad": "mtrl.aggregators.sdmgrad:SDMGrad",
    "upgrad": "mtrl.aggregators.upgrad:UPGrad",
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
