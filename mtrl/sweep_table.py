"""What a sweep found: methods in rows, seeds in columns, means over seeds with their intervals."""

import json
from collections.abc import Sequence
from typing import Any

from mtrl.statistics import CONFIDENCE, mean_interval
from mtrl.sweep_plan import Run

_NONE = "-"


def table(runs: Sequence[Run]) -> list[str]:
    """Return the lines to print.

    The numbers are those of the evaluation at the end of the steps asked for: mean success, and that of the worst
    task. Runs that are not finished are named below and count nowhere. Intervals are Student's, over seeds; equal
    values and single ones have none.
    """
    seeds, methods = (list(dict.fromkeys(getattr(run, name) for run in runs)) for name in ("seed", "aggregator"))
    found = {(run.aggregator, run.seed): last_evaluation(run) for run in runs if run.is_finished()}
    interval = f"{100 * CONFIDENCE:.0f}% interval"
    rows = [["aggregator", *(f"seed {seed}" for seed in seeds), "mean", interval, "worst task", interval]]
    for method in methods:
        evaluations = [found.get((method, seed)) for seed in seeds]
        means, worst = (
            [evaluation[f"success/{name}"] if evaluation else None for evaluation in evaluations]
            for name in ("mean", "worst")
        )
        rows.append([method, *map(_cell, means), *_summary(means), *_summary(worst)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    unfinished = [f"{run.name} (step {run.steps_saved():,})" for run in runs if (run.aggregator, run.seed) not in found]
    return [f"success at step {runs[0].total_steps:,}", *lines, *(f"not finished: {name}" for name in unfinished)]


def last_evaluation(run: Run) -> dict[str, Any] | None:
    """Return the evaluation at the end of the run's steps, else the newest, None where there is none.

    A run that was trained on has later ones, which other runs of the sweep have not.
    """
    with (run.run_dir / "metrics.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines if line.startswith('{"kind": "evaluation"')]
    return next((record for record in records if record["step"] >= run.total_steps), records[-1] if records else None)


def _summary(values: Sequence[float | None]) -> tuple[str, str]:
    """Return the mean over the seeds that have a value, and its interval, cut to where rates lie."""
    known = [value for value in values if value is not None]
    if not known:
        return _NONE, _NONE
    mean = _cell(sum(known) / len(known))
    if len(set(known)) == 1:
        return mean, _NONE
    low, high = mean_interval(known)
    return mean, f"{max(low, 0.0):.3f} to {min(high, 1.0):.3f}"


def _cell(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"
