"""The numbers behind the figures, as CSV."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mtrl.report import provenance
from mtrl.report.methods import Comparison, Method
from mtrl.report.runs import Run
from mtrl.report.summary import Summary, of_run

Row = Sequence[object]

EVALUATED = ("success", "success_at_end", "return")


def write(
    comparison: Comparison,
    summaries: Sequence[Summary],
    improvements: dict[tuple[int, int], tuple[float, float, float]],
    folder: Path,
) -> list[str]:
    """Write every table that has rows; return the names of the files."""
    labels = [method.label for method in comparison.methods]
    pairs = [(labels[x], labels[y], *numbers) for (x, y), numbers in sorted(improvements.items())]
    tables: dict[str, tuple[Row, Iterable[Row]]] = {
        "summary.csv": (SUMMARY, [summary_row(one) for one in summaries]),
        "runs.csv": (RUNS, run_rows(comparison)),
        "evaluations.csv": (("run", "method", "seed", "step", "task", *EVALUATED), _evaluations(comparison)),
        "goals.csv": (("run", "method", "seed", "step", "task", "goal", *EVALUATED), _goals(comparison)),
        "improvement.csv": (("x", "y", "probability", "low", "high"), pairs),
        "training.csv": (("run", "method", "seed", "step", "name", "value"), _training(comparison)),
    }
    return [name for name, (header, rows) in tables.items() if _write(folder / name, header, rows)]


SUMMARY = (
    "method", "runs", "seeds", "step", "last", "last_low", "last_high", "iqm", "iqm_low", "iqm_high",
    "best", "best_low", "best_high", "area", "area_low", "area_high", "worst", "worst_task",
)  # fmt: skip


def summary_row(one: Summary) -> Row:
    """Return the row of one method, in the order of `SUMMARY`."""
    return (
        one.label, one.num_runs, one.num_seeds, one.step, one.last, *one.last_interval, one.iqm, *one.iqm_interval,
        one.best, *one.best_interval, one.area, *one.area_interval, one.worst, one.worst_task,
    )  # fmt: skip


RUNS = (
    "run",
    "method",
    "seed",
    "recorded_step",
    "evaluated_step",
    "last",
    "best",
    "best_step",
    "area",
    "commit",
    "hardware",
    "command",
)


def run_rows(comparison: Comparison) -> Iterator[Row]:
    """Yield one row per run, each at its own last evaluation, in the order of `RUNS`; empty where there is none."""
    for method, run in _runs(comparison):
        evaluations = run.records["evaluation"]
        numbers: Row = ("", "", "", "", "")
        if evaluations:
            steps = np.array([record["step"] for record in evaluations])
            found = of_run(steps, np.array([record["success/mean"] for record in evaluations]))
            numbers = (int(steps[-1]), *found)
        source = (provenance.commits([run]), provenance.hardware([run]), provenance.command(run))
        yield (run.name, method.label, run.seed, run.step, *numbers, *source)


def _evaluations(comparison: Comparison) -> Iterator[Row]:
    for method, run in _runs(comparison):
        for record in run.records["evaluation"]:
            for task in run.tasks:
                values = [record.get(f"{name}/{task}") for name in EVALUATED]
                yield (run.name, method.label, run.seed, record["step"], task, *values)


def _goals(comparison: Comparison) -> Iterator[Row]:
    for method, run in _runs(comparison):
        whole = run.whole or {"episodes": ()}
        for episode in whole["episodes"]:
            values = [float(episode[name]) for name in EVALUATED]
            yield (run.name, method.label, run.seed, whole["step"], episode["task"], episode["goal"], *values)


def _training(comparison: Comparison) -> Iterator[Row]:
    """Yield every number but matrices."""
    for method, run in _runs(comparison):
        for record in run.records["train"]:
            for name, value in record.items():
                if name not in ("kind", "step") and isinstance(value, int | float):
                    yield (run.name, method.label, run.seed, record["step"], name, value)


def _runs(comparison: Comparison) -> Iterator[tuple[Method, Run]]:
    return ((method, run) for method in comparison.methods for run in method.runs)


def _write(file: Path, header: Row, rows: Iterable[Row]) -> bool:
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return False
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for row in (first, *rows):
            writer.writerow(["" if value is None else _number(value) for value in row])
    return True


def _number(value: object) -> object:
    """Return six digits of a number that is none of counting; nothing where it is not finite."""
    if isinstance(value, float | np.ndarray):
        return f"{float(value):.6g}" if np.isfinite(value) else ""
    return value
