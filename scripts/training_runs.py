"""Trainings of a comparison: those that are missing are started, what all recorded is read."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrl.statistics import mean_interval


@dataclass(frozen=True)
class Run:
    """One training: its directory, which exists when it is complete, and the flags of `mtrl.train`."""

    directory: Path
    flags: tuple[str, ...]

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of a kind: train or evaluation."""
        lines = (self.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [record for record in map(json.loads, lines) if record["kind"] == kind]

    def start(self) -> dict[str, Any]:
        """Return what the run noted of its start: command, commit, hardware, versions."""
        return json.loads((self.directory / "environment.json").read_text(encoding="utf-8"))[-1]


def train(runs: Sequence[Run], jobs: int) -> None:
    """Train what is not complete yet, `jobs` processes at a time.

    Raises:
        ValueError: A directory holds a run of other flags.
        RuntimeError: A training failed; those that are running are finished first, the rest is left.
    """
    missing = [run for run in runs if not run.directory.exists()]
    for run in runs:
        if run not in missing and (found := tuple(run.start()["command"][2:-2])) != run.flags:
            raise ValueError(f"{run.directory} was trained with {' '.join(found)}, expected {' '.join(run.flags)}")
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are complete", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for number, line in enumerate(pool.map(_train, missing), 1):
                print(f"{number}/{len(missing)} {line}", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _train(run: Run) -> str:
    """Train beside the run's place, and move there what is complete."""
    partial = run.directory.with_name(f"{run.directory.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    began = time.monotonic()
    command = [sys.executable, "-m", "mtrl.train", *run.flags, "--run-dir", str(partial)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {found.returncode}:\n{found.stderr[-2000:]}")
    partial.rename(run.directory)
    success = run.records("evaluation")[-1]["success/mean"]
    return f"{run.directory.name}: success {success:.3f}, {time.monotonic() - began:.0f} s"


def last(run: Run, tasks: Sequence[str]) -> float:
    """Return the mean success of the tasks in the last evaluation."""
    return _success(run, tasks)[-1]


def best(run: Run, tasks: Sequence[str]) -> float:
    """Return the highest mean success of the tasks in any evaluation."""
    return max(_success(run, tasks))


def average(run: Run, tasks: Sequence[str]) -> float:
    """Return the mean success of the tasks over all evaluations: the earlier they are solved, the higher."""
    curve = _success(run, tasks)
    return sum(curve) / len(curve)


def _success(run: Run, tasks: Sequence[str]) -> list[float]:
    return [sum(record[f"success/{task}"] for task in tasks) / len(tasks) for record in run.records("evaluation")]


def mean_cell(values: Sequence[float], low: float = 0.0, high: float = 1.0) -> str:
    """Write the mean and Student's 95% interval of it, cut to where values lie; equal or single ones have none."""
    mean = f"{sum(values) / len(values):z.2f}"
    if len(set(values)) == 1:
        return mean
    ends = mean_interval(values)
    return f"{mean} ({max(ends.low, low):z.2f} to {min(ends.high, high):z.2f})"


def provenance(runs: Sequence[Run]) -> str:
    """Say which code and machine the runs come from."""
    starts = [run.start() for run in runs]
    commits, cpus, torches = (
        ", ".join(sorted({str(value) for value in values}))
        for values in (
            (str(start["commit"])[:7] for start in starts),
            (start["cpu"] for start in starts),
            (start["versions"]["torch"] for start in starts),
        )
    )
    return f"{len(runs)} runs, commit {commits}, CPU {cpus}, torch {torches}."
