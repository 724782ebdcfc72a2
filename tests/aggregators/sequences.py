"""Reads the reference vectors of methods that see losses or keep state: several updates, one after the other."""

import json
from typing import Any

import torch
from torch import Tensor

from tests.aggregators.vectors import DATA


class Sequence:
    """What published code returned, update by update. Entries are tensors where they hold numbers."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.entry = entry
        self.name: str = entry["name"]
        self.options: dict[str, Any] = entry["hyperparameters"]
        self.tolerance: dict[str, float] = entry["tolerance"]

    def __getitem__(self, key: str) -> Tensor:
        return torch.tensor(self.entry[key], dtype=torch.float64)


def load_sequences(file: str) -> list[Sequence]:
    """Return all vectors of tests/data/`file`.json, each with the data of its case."""
    content = json.loads((DATA / f"{file}.json").read_text())
    return [Sequence(content["cases"].get(entry.get("case"), {}) | entry) for entry in content["vectors"]]


def losses_of(method: str) -> list[Sequence]:
    """Return the vectors of one method of loss_weighting.json."""
    return [sequence for sequence in load_sequences("loss_weighting") if sequence.entry["method"] == method]


def name_of(sequence: Sequence) -> str:
    """Name the test."""
    return sequence.name
