"""Checkpoints: written whole or not at all, loaded without executing anything.

A checkpoint is a folder named by its step, holding one file per part (agent, replay, ...). It is written under another
name and renamed when everything is on the disk, and renamed again before it is deleted:

000000012000           complete
.old-000000012000      complete; one of the same step is taking its place, and counts instead as soon as it has its name
.partial-000000012000  being written or deleted
"""

import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

KEEP = 2
"""Checkpoints kept; older ones are deleted once a newer one is complete."""

_ARRAY = "__ndarray__"
_OLD = ".old-"
_PARTIAL = ".partial-"


def save(folder: Path, step: int, parts: Mapping[str, Any]) -> Path:
    """Write a checkpoint atomically and delete old ones.

    Args:
        folder: Where the run keeps its checkpoints.
        step: Environment steps so far; names the checkpoint.
        parts: File name -> tree of tensors, arrays, numbers, strings, lists, tuples, dicts and None.

    Returns:
        The checkpoint's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    final = folder / f"{step:012d}"
    partial = folder / f"{_PARTIAL}{final.name}"
    partial.mkdir()
    for name, tree in parts.items():
        with (partial / f"{name}.pt").open("wb") as file:
            torch.save(_encode(tree), file)
            file.flush()
            os.fsync(file.fileno())
    _sync_folder(partial)
    if final.exists():
        final.rename(folder / f"{_OLD}{final.name}")
    partial.rename(final)
    _sync_folder(folder)
    _sweep(folder)
    return final


def latest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in `folder`, or None."""
    complete = by_step(folder)
    return complete[max(complete)] if complete else None


def by_step(folder: Path) -> dict[int, Path]:
    """Return all complete checkpoints in `folder` by their step, oldest first."""
    complete: dict[int, Path] = {}
    for path in sorted(folder.glob("*")):  # `.old-` comes before numbers and gives way to them
        if (step := path.name.removeprefix(_OLD)).isdigit():
            complete[int(step)] = path
    return dict(sorted(complete.items()))


def load(checkpoint: Path, part: str, device: torch.device | str = "cpu") -> Any:
    """Read one part of a checkpoint.

    Raises:
        FileNotFoundError: The checkpoint has no such part.
        ValueError: The file cannot be read, as where it is damaged.
    """
    file = checkpoint / f"{part}.pt"
    try:
        return _decode(torch.load(file, map_location=device, weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as problem:  # what torch raises on other bytes
        raise ValueError(f"{file} cannot be read: {type(problem).__name__}: {problem}") from problem


def _sweep(folder: Path) -> None:
    """Delete old checkpoints and what killed processes left, never under the name of a complete one."""
    for path in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path)
    kept = list(by_step(folder).values())[-KEEP:]
    for path in sorted(folder.glob("*")):
        if path not in kept and path.name.removeprefix(_OLD).isdigit():
            shutil.rmtree(path.rename(folder / f"{_PARTIAL}{path.name}"))


def _sync_folder(folder: Path) -> None:
    """Make renames and new files in `folder` survive a power cut, where the system offers it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(tree: Any) -> Any:
    """Turn arrays into marked tensors: `weights_only` loading refuses arrays."""
    if isinstance(tree, np.ndarray):
        return {_ARRAY: torch.from_numpy(np.ascontiguousarray(tree))}
    if isinstance(tree, Mapping):
        return {key: _encode(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_encode(value) for value in tree)
    return tree


def _decode(tree: Any) -> Any:
    """Undo `_encode`."""
    if isinstance(tree, dict):
        if tree.keys() == {_ARRAY}:
            return tree[_ARRAY].numpy(force=True)
        return {key: _decode(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_decode(value) for value in tree)
    return tree
