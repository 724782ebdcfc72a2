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
    "cagrad": "mtrl.aggregators.cagrad:CAGrad",
    "config": "mtrl.aggregators.config:ConFIG",
    "db_mtl": "mtrl.aggregators.db_mtl:DBMTL",
    "dibs": "mtrl.aggregators.dibs:DiBS",
    "dualproj": "mtrl.aggregators.dualproj:DualProj",
    "dwa": "mtrl.aggregators.dwa:DWA",
    "fairgrad": "mtrl.aggregators.fairgrad:FairGrad",
    "famo": "mtrl.aggregators.famo:FAMO",
    "graddrop": "mtrl.aggregators.graddrop:GradDrop",
    "gradnorm": "mtrl.aggregators.gradnorm:GradNorm",
    "gradvac": "mtrl.aggregators.gradvac:GradVac",
    "imtl_g": "mtrl.aggregators.imtl_g:IMTLG",
    "imtl_l": "mtrl.aggregators.imtl_l:IMTLL",
    "it_mtl": "mtrl.aggregators.it_mtl:ITMTL",
    "mean": "mtrl.aggregators.mean:Mean",
    "mgda": "mtrl.aggregators.mgda:MGDA",
    "moco": "mtrl.aggregators.moco:MoCo",
    "nash": "mtrl.aggregators.nash:NashMTL",
    "pcgrad": "mtrl.aggregators.pcgrad:PCGrad",
    "rlw": "mtrl.aggregators.rlw:RLW",
    "scale_invariant": "mtrl.aggregators.scale_invariant:ScaleInvariant",
    "sdmgrad": "mtrl.aggregators.sdmgrad:SDMGrad",
    "sum": "mtrl.aggregators.sum:Sum",
    "uncertainty": "mtrl.aggregators.uncertainty:Uncertainty",
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
