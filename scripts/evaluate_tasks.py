"""How good are these runs, task by task, and how far do they differ?

Evaluates the newest checkpoint of every run, every goal of every task once, or reads what `mtrl.evaluate` has written
of it, and prints one table: tasks in rows, runs in columns, then the mean over runs and Student's 95% interval of it.

    python scripts/evaluate_tasks.py runs/mt10-aligned-0 runs/mt10-aligned-1 runs/mt10-aligned-2
"""

import argparse
import json
from pathlib import Path
from typing import Any

from mtrl.cli import error
from mtrl.evaluate import evaluate_run
from mtrl.evaluate_options import Options, plan
from mtrl.failures import report_failures
from mtrl.statistics import mean_interval

DIGITS = {"success": 3, "success_at_end": 3, "return": 1}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--metric", choices=DIGITS, default="success")
    parser.add_argument("--again", action="store_true", help="evaluate also what has been evaluated")
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    if len({run.resolve() for run in args.runs}) < len(args.runs):
        parser.error("a run is named twice: its results are not independent of themselves")
    raise SystemExit(report_failures(lambda: _main(args)))


def _main(args: argparse.Namespace) -> None:
    records = [_record(Options(run=run, workers=args.workers), again=args.again) for run in args.runs]
    if len({record["run"] for record in records}) < len(records):
        records = [record | {"run": str(run)} for record, run in zip(records, args.runs, strict=True)]
    print("\n".join(table(records, args.metric)))


def table(records: list[dict[str, Any]], metric: str) -> list[str]:
    """Return the lines of a table of tasks x runs.

    Args:
        records: What `mtrl.evaluate` writes, one per run.
        metric: success, success_at_end or return.
    """
    digits = DIGITS[metric]
    tasks = list(records[0]["tasks"])
    for record in records:
        for name in ("env", "goal_seed"):
            if record[name] != records[0][name]:
                error(
                    f"{record['run']} has {name} {record[name]} and {records[0]['run']} has {records[0][name]}: "
                    "compare runs of the same tasks and goals"
                )
    lines = [
        "| " + " | ".join([metric, *(record["run"] for record in records), "mean", "95% interval"]) + " |",
        "|---" * (len(records) + 3) + "|",
        "| step | " + " | ".join(f"{record['step']:,}" for record in records) + " | | |",
    ]
    rows = {task: [record["tasks"][task][metric] for record in records] for task in tasks}
    rows["**mean**"] = [record["mean"][metric] for record in records]
    for name, values in rows.items():
        cells = [f"{value:.{digits}f}" for value in (*values, sum(values) / len(values))]
        lines.append(f"| {name} | " + " | ".join([*cells, _interval(values, metric)]) + " |")
    return lines


def _interval(values: list[float], metric: str) -> str:
    """Write the interval of the mean over runs; a rate's ends where rates end.

    One run has none, and neither have equal ones, whose deviation says nothing.
    """
    if len(set(values)) == 1:
        return "-"
    low, high = mean_interval(values)
    if metric != "return":
        low, high = max(low, 0.0), min(high, 1.0)
    return f"{low:.{DIGITS[metric]}f} to {high:.{DIGITS[metric]}f}"


def _record(options: Options, *, again: bool) -> dict[str, Any]:
    file = plan(options).file
    if file.exists() and not again:
        return json.loads(file.read_text(encoding="utf-8"))
    return evaluate_run(options)[0]


if __name__ == "__main__":
    main()
