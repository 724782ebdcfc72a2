"""Reads the reference vectors of tests/data."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parents[1] / "data"


class Vector(NamedTuple):
    """What published code returned for one Jacobian."""

    name: str
    case: str
    jacobian: Tensor
    preference: Tensor | None
    hyperparameters: dict[str, Any]
    status: str
    gradient: Tensor | None
    weights: Tensor | None
    orders: list[list[int]] | None
    rtol: float
    atol: float
    entry: dict[str, Any]
    """The whole entry, for what only some files have."""


def load(file: str) -> list[Vector]:
    """Return all vectors of tests/data/`file`.json."""
    content = read(DATA / f"{file}.json")
    cases = content.get("cases") or _shared_cases()
    return [_read(entry, cases[entry["case"]] if "case" in entry else entry) for entry in content["vectors"]]


@cache
def _shared_cases() -> dict[str, Any]:
    """Return the Jacobians of the files that bring none."""
    return read(DATA / "cases.json")["cases"]


def read(path: Path) -> dict[str, Any]:
    """Return a file as it is."""
    return json.loads(path.read_text())


def _read(entry: dict[str, Any], case: dict[str, Any]) -> Vector:
    return Vector(
        name=entry["name"],
        case=entry.get("case", ""),
        jacobian=_tensor(case["jacobian"]),
        preference=_tensor(case["preference"]) if "preference" in case else None,
        hyperparameters=entry["hyperparameters"],
        status=entry["status"],
        gradient=_tensor(entry["gradient"]) if entry.get("gradient") is not None else None,
        weights=_tensor(entry["weights"]) if entry.get("weights") is not None else None,
        orders=entry.get("orders"),
        rtol=entry.get("tolerance", {}).get("rtol", 0.0),
        atol=entry.get("tolerance", {}).get("atol", 0.0),
        entry=entry,
    )


def _tensor(values: list[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64))  # NumPy reads "nan" and "inf"


def assert_close(found: Tensor, expected: Tensor, *, rtol: float, atol: float) -> None:
    """Assert norm(found - expected) <= atol + rtol * norm(expected)."""
    error, bound = (found - expected).norm(), atol + rtol * expected.norm()
    assert error <= bound, (
        f"error {error:.3e} exceeds {bound:.3e}; norm {found.norm():.6e}, expected {expected.norm():.6e}"
    )
