"""Do the claims of three papers show in reinforcement learning on the toy suites?

Trains the toy suites with several methods and seeds and writes one Markdown file: condition numbers with and without
Aligned-MTL, DiBS-MTL with one task's reward transformed, IT-MTL beside the mean. What is trained already in `--runs` is
read, so that an interrupted call is continued by the same call.

    python scripts/toy_claims.py --runs DIR --jobs 2 --output results/toy_claims.md
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from training_runs import Run, average, best, last, mean_cell, provenance, train

from mtrl.cli import error
from mtrl.envs import task_names
from mtrl.statistics import mean_interval

EVAL_GOALS = 50
"""All of every task."""

TRANSFORMED = {"toy_exp": ("reach-west", "exp(5 r)"), "toy_power": ("reach-south", "sign(r) r^4")}
"""Suites with one transformed reward: the task and what its reward r becomes."""

METHODS = {
    "toy": ("mean", "aligned", "dibs"),
    "toy_exp": ("mean", "aligned", "dibs"),
    "toy_power": ("mean", "aligned", "dibs"),
    "toy_scaled": ("mean", "aligned", "dibs", "it_mtl"),
}
"""Methods of every suite; toy_exp and toy_power are compared with toy."""

COMPONENTS = ("critic", "actor")

HEAD = """# Claims of three papers on the toy suites

    python scripts/toy_claims.py --runs DIR --seeds {seeds} --output results/toy_claims.md

Every run: `python -m mtrl.train --env ENV --aggregator METHOD --seed SEED --eval-goals {goals}`, the preset of the
environment, {steps} environment steps, seeds 0 to {last}.
{provenance}

Success: deterministic policy, all {goals} goals of every task, solved at any step of the episode. *Last* is the
evaluation at the end; *best* the highest of the run's six, which is chosen by its outcome and flatters every method;
*average* is over the six: the earlier tasks are solved, the higher. In brackets Student's 95% interval of the mean over
seeds, cut to where values can lie; none where all seeds are equal."""

CONDITION = """## Aligned-MTL: the condition number, on `toy_scaled`

Of the system of task gradients, before and after aggregation. Per run the median of its records, one update each 1,000
environment steps; over seeds the geometric mean, and its interval from the logarithms."""

TRANSFORMS = """## DiBS-MTL: one task's reward transformed, against nominal

Nominal is `toy`. *Change* is transformed minus nominal, of the last evaluation, seed by seed."""

SUBSETS = "## IT-MTL, and the other methods: success on `toy_scaled`"


class Runs(NamedTuple):
    """All trainings of the comparison."""

    folder: Path
    seeds: int

    def of(self, env: str, method: str) -> list[Run]:
        """Return the trainings of one environment and method, one per seed."""
        return [self.one(env, method, seed) for seed in range(self.seeds)]

    def one(self, env: str, method: str, seed: int) -> Run:
        """Return one training."""
        flags = ("--env", env, "--aggregator", method, "--seed", str(seed), "--eval-goals", str(EVAL_GOALS))
        return Run(self.folder / f"{env}-{method}-{seed}", (*flags, "--device", "cpu"))

    def all(self) -> list[Run]:
        """Return all of them, seed by seed: where time ends early, all methods have the same seeds."""
        pairs = [(env, method) for env, methods in METHODS.items() for method in methods]
        return [self.one(env, method, seed) for seed in range(self.seeds) for env, method in pairs]


def main() -> None:
    """Train what is missing and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="where the run directories are")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="seeds 0 to N-1 (default: 10)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, of one thread each (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("results/toy_claims.md"))
    args = parser.parse_args()
    runs = Runs(args.runs, args.seeds)
    args.runs.mkdir(parents=True, exist_ok=True)
    try:
        train(runs.all(), args.jobs)
    except (RuntimeError, ValueError) as problem:
        error(str(problem))
    args.output.write_text(report(runs), encoding="utf-8")
    print(f"wrote {args.output}")


def report(runs: Runs) -> str:
    """Return the Markdown text: what was run, then one table per claim."""
    total = runs.one("toy", "mean", 0).records("evaluation")[-1]["step"]
    head = HEAD.format(
        seeds=runs.seeds, last=runs.seeds - 1, goals=EVAL_GOALS, steps=f"{total:,}", provenance=provenance(runs.all())
    )
    transforms = ["\n".join(transform_table(runs, env)) for env in TRANSFORMED]
    sections = [head, CONDITION, "\n".join(condition_table(runs)), TRANSFORMS, *transforms]
    return "\n\n".join([*sections, SUBSETS, "\n".join(success_table(runs, "toy_scaled"))]) + "\n"


def condition_table(runs: Runs) -> list[str]:
    """Return the condition numbers that training leads to, a row per method and component."""
    lines = _header("method", "component", "before", "lowest and highest seed", "after")
    for method in METHODS["toy_scaled"]:
        for component in COMPONENTS:
            before = [_median(run, f"condition_number/{component}") for run in runs.of("toy_scaled", method)]
            after = [_median(run, f"condition_number_after/{component}") for run in runs.of("toy_scaled", method)]
            spread = f"{_digits(min(before))} to {_digits(max(before))}"
            lines.append(_row(method, component, _geometric_cell(before), spread, _geometric_cell(after)))
    return lines


def transform_table(runs: Runs, env: str) -> list[str]:
    """Return the success of the transformed task and of the others, a row per method."""
    task, formula = TRANSFORMED[env]
    others = [name for name in task_names(env) if name != task]
    kinds = ("nominal last, best, average", "transformed last, best, average", "change")
    columns = [f"{who}: {kind}" for who in (task, "others") for kind in kinds]
    lines = [f"`{env}`: the reward r of {task} becomes {formula}.", "", *_header("method", *columns)]
    for method in METHODS[env]:
        nominal, transformed = runs.of("toy", method), runs.of(env, method)
        cells = []
        for tasks in ([task], others):
            pairs = zip(transformed, nominal, strict=True)
            change = [last(ours, tasks) - last(theirs, tasks) for ours, theirs in pairs]
            cells += [_success_cell(nominal, tasks), _success_cell(transformed, tasks), mean_cell(change, low=-1.0)]
        lines.append(_row(method, *cells))
    return lines


def success_table(runs: Runs, env: str) -> list[str]:
    """Return the success of every task and of their mean, a row per method."""
    tasks = task_names(env)
    lines = _header("method", *tasks, "mean, last", "mean, best", "mean, average")
    for method in METHODS[env]:
        trained = runs.of(env, method)
        cells = [mean_cell([last(run, [task]) for run in trained]) for task in tasks]
        cells += [mean_cell([measure(run, tasks) for run in trained]) for measure in (last, best, average)]
        lines.append(_row(method, *cells))
    return lines


def _success_cell(runs: Sequence[Run], tasks: Sequence[str]) -> str:
    means = [sum(measure(run, tasks) for run in runs) / len(runs) for measure in (best, average)]
    return ", ".join([mean_cell([last(run, tasks) for run in runs]), *(f"{mean:.2f}" for mean in means)])


def _median(run: Run, name: str) -> float:
    """Return the median of a quantity over the run's records; nan where none has it."""
    values = [record[name] for record in run.records("train") if name in record]
    return statistics.median(values) if values else math.nan


def _geometric_cell(values: Sequence[float]) -> str:
    """Write the geometric mean and its interval; nothing where a method does not tell."""
    if any(map(math.isnan, values)):
        return ""
    logarithms = [math.log(value) for value in values]
    mean = _digits(math.exp(sum(logarithms) / len(logarithms)))
    if len(set(values)) == 1:
        return mean
    low, high = mean_interval(logarithms)
    return f"{mean} ({_digits(math.exp(low))} to {_digits(math.exp(high))})"


def _digits(value: float) -> str:
    """Write three digits, of large numbers as many as they have."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _header(*columns: str) -> list[str]:
    return [_row(*columns), "|---" * len(columns) + "|"]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
