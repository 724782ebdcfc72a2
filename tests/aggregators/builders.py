"""Builds the method that each file of reference vectors is compared with."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatch

from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.base import Aggregator
from tests.aggregators.vectors import Vector

RESCALE = {0: "none", 1: "square", 2: "linear", "none": "none"}


def case_weights(vector: Vector) -> tuple[float, ...] | None:
    """Return the weights that the vector was made with; None for 1/T each."""
    if vector.hyperparameters["preference"] != "case preference":
        return None
    assert vector.preference is not None
    return tuple(vector.preference.tolist())


BUILD: dict[str, Callable[[Vector], Aggregator]] = {
    "mgda_torchjd": lambda v: make("mgda"),
    "mgda_samsung": lambda v: make("mgda"),
    "mgda_nashmtl_repo": lambda v: make("mgda"),
    "upgrad": lambda v: make("upgrad", weights=case_weights(v), reg_eps=v.hyperparameters["reg_eps"]),
    "dualproj": lambda v: make("dualproj", weights=case_weights(v), reg_eps=v.hyperparameters["reg_eps"]),
    "config_official": lambda v: make("config"),
    "config_torchjd": lambda v: make("config", weights=case_weights(v)),
    "imtl_g_official_lineage": lambda v: make("imtl_g"),
    "imtl_g_torchjd": lambda v: make("imtl_g"),
    "cagrad_torchjd": lambda v: make("cagrad", c=v.hyperparameters["c"], rescale="none"),
    "cagrad_official_slsqp": lambda v: make(
        "cagrad", c=v.hyperparameters["c"], rescale=RESCALE[v.hyperparameters["rescale"]]
    ),
    "cagrad_mtrl": lambda v: make("cagrad", c=v.hyperparameters["c"], solver="sgd"),
    "nash_torchjd": lambda v: make("nash", max_norm=v.hyperparameters["max_norm"] or None),
    "nash_official": lambda v: make("nash", max_norm=v.hyperparameters["max_norm"] or None),
    "fairgrad_lsq": lambda v: make("fairgrad", alpha=v.hyperparameters["alpha"], max_norm=None),
    "fairgrad_mtrl_sgd": lambda v: make("fairgrad", solver="sgd", max_norm=None),
    "sdmgrad_mtrl": lambda v: make("sdmgrad", solver="sgd"),
}
"""The method that a file's vectors are compared with."""


def result(file: str, vector: Vector) -> Tensor:
    """Return our direction in the convention of the file."""
    found = BUILD[file](vector)(vector.jacobian)
    return len(vector.jacobian) * found if file == "mgda_nashmtl_repo" else found


def is_one_of(vector: Vector, patterns: Iterable[str]) -> bool:
    """Say whether a pattern fits the vector's name, or its name up to the hyperparameters."""
    return any(fnmatch(name, pattern) for name in (vector.name, vector.case) for pattern in patterns)
