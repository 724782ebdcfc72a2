"""Are two runs the same, bit for bit? Compares the newest checkpoints, metrics.jsonl and TensorBoard's curves.

    python scripts/compare_runs.py runs/toy-aligned-0 runs/toy-aligned-0-again

Left out is what tells of the clock: `time`, `speed/*`, `time_share/*`. Ends with code 1 where something differs.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtrl.checkpoint import latest, load

TIMES = ("time", "speed/", "time_share/")
"""What the names of numbers that tell of the clock begin with; all others must be equal."""

NOT_COMPARED = ("records",)
"""Parts of a checkpoint: this one holds the sizes of the files of records, in which times stand."""


def main() -> None:
    """Print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN")
    args = parser.parse_args()
    found = differences(*args.runs)
    print("\n".join(found) or "the same")
    raise SystemExit(1 if found else 0)


def differences(a: Path, b: Path) -> list[str]:
    """Return the places in which two runs differ, of state, records and curves."""
    return list(_different("", contents(a), contents(b)))


def contents(run: Path) -> dict[str, Any]:
    """Return everything by which runs are compared."""
    lines, curves, images = told(run)
    return {"checkpoint": everything(run), "metrics.jsonl": lines, "TensorBoard": curves, "pictures": images}


def everything(run: Path) -> dict[str, Any]:
    """Return all that the newest checkpoint of a run holds, the rows of its replay as `rows`.

    Raises:
        ValueError: There is no checkpoint, or a file of it is damaged.
    """
    checkpoint = latest(run / "checkpoints")
    if checkpoint is None:
        raise ValueError(f"{run} has no checkpoint")
    names = [path.stem for path in checkpoint.glob("*.pt") if path.stem not in NOT_COMPARED]
    return {name: load(checkpoint, name) for name in names} | {"rows": saved_rows(checkpoint)}


def saved_rows(checkpoint: Path) -> list[np.ndarray]:
    """Return the rows that a checkpoint keeps of every task, the oldest first, read without the replay's own code."""
    state = load(checkpoint, "replay")
    size, capacity = state["row_bytes"], state["capacity"]
    found = {}
    for name, entry in json.loads((checkpoint / "manifest.json").read_text())["segments"].items():
        content = (checkpoint.parent / "replay" / name).read_bytes()
        for task, start, stop in entry["pieces"]:
            for number in range(start, stop):
                found[task, number], content = content[:size], content[size:]
        assert not content
    return [
        np.array([np.frombuffer(found[task, number], np.float32) for number in range(max(0, n - capacity), n)])
        for task, n in enumerate(state["added"].tolist())
    ]


def told(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Return the records, curves and pictures of a run, but for times; numbers of curves as text: NaN is no NaN."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [{name: value for name, value in line.items() if not name.startswith(TIMES)} for line in lines]
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    curves = {
        tag: [(point.step, repr(point.value)) for point in events.Scalars(tag)]
        for tag in tags["scalars"]
        if not tag.startswith(TIMES)
    }
    images = {tag: [(point.step, point.encoded_image_string) for point in events.Images(tag)] for tag in tags["images"]}
    return lines, curves, images


def _different(where: str, a: Any, b: Any) -> Iterator[str]:
    """Yield the places in which two trees differ."""
    if type(a) is not type(b):
        yield f"{where}: {type(a).__name__} and {type(b).__name__}"
    elif isinstance(a, dict):
        for key in dict.fromkeys([*a, *b]):
            if key in a and key in b:
                yield from _different(f"{where}/{key}", a[key], b[key])
            else:
                yield f"{where}/{key}: only in the {'first' if key in a else 'second'}"
    elif isinstance(a, list | tuple) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _different(f"{where}/{index}", x, y)
    elif _comparable(a) != _comparable(b):
        yield f"{where}: {str(a)[:60]} and {str(b)[:60]}"


def _comparable(leaf: Any) -> Any:
    """Return numbers as their bytes, so that NaN equals NaN and 0 does not equal -0."""
    if isinstance(leaf, torch.Tensor):
        leaf = leaf.numpy()
    return (leaf.dtype, leaf.shape, leaf.tobytes()) if isinstance(leaf, np.ndarray) else leaf


if __name__ == "__main__":
    main()
