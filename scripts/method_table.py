"""Print what `mtrl.report` says of methods as a Markdown table, the highest last success first.

    python -m scripts.method_table sweeps/toy_scaled/*

Intervals are 95%: of whole runs for last, best and area, of runs drawn for each task apart for the IQM.
"""

import argparse
import math
from pathlib import Path

from mtrl.cli import error
from mtrl.flags import UsageError
from mtrl.report import provenance
from mtrl.report.methods import Comparison, compare
from mtrl.report.summary import Summary, summarise
from mtrl.statistics import Band, probability_of_improvement

HEADER = (
    "method",
    "seeds",
    "last",
    "IQM over tasks and seeds",
    "best",
    "area under curve",
    "worst task",
    "better than",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument(
        "--baseline", default="mean", metavar="METHOD", help='compared with (default: %(default)s); "" for none'
    )
    args = parser.parse_args()
    try:
        lines = table(compare(args.runs), args.baseline)
    except UsageError as problem:
        error(str(problem))
    print("\n".join(lines))


def table(comparison: Comparison, baseline: str) -> list[str]:
    """Return the lines of the table, and below it where the runs come from."""
    found = sorted(summarise(comparison), key=lambda one: (-one.last, -one.area))
    if not found:
        raise UsageError("no run has an evaluation yet")
    labels = [method.label for method in comparison.methods]
    if baseline not in ("", *labels):
        raise UsageError(f"--baseline: {baseline} is none of the methods: {', '.join(labels)}")
    header = [*HEADER[:-1], f"{HEADER[-1]} {baseline}"]
    rows = [header, ["---"] * len(header), *(_row(one, comparison, baseline) for one in found)]
    where = provenance.lines(comparison.runs)
    steps = " and ".join(f"{step:,}" for step in sorted({one.step for one in found}))
    return [
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"{len(comparison.runs)} runs, steps {steps}; commit {where['commit']}; {where['hardware']}.",
        where["protocol"],
        *filter(None, [comparison.few_seeds, *comparison.notes]),
    ]


def _row(one: Summary, comparison: Comparison, baseline: str) -> list[str]:
    return [
        one.label,
        str(one.num_seeds),
        _with(one.last, one.last_interval),
        _with(one.iqm, one.iqm_interval),
        _with(one.best, one.best_interval),
        _with(one.area, one.area_interval),
        f"{one.worst:.2f} {one.worst_task}",
        _beside(one, comparison, baseline),
    ]


def _beside(one: Summary, comparison: Comparison, baseline: str) -> str:
    """Return the probability that a run of the method is better than one of the baseline, mean over tasks."""
    methods = {method.label: method for method in comparison.methods}
    if baseline in ("", one.label) or not comparison.steps or methods[baseline].success is None:
        return ""
    scores = (methods[label].success_at(one.step) for label in (one.label, baseline))
    return f"{float(probability_of_improvement(*scores)):.2f}"


def _with(value: float, interval: Band) -> str:
    low, high = (float(end) for end in interval)
    return f"{value:.2f}" if low == high or math.isnan(low) else f"{value:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
