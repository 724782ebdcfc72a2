r"""Which tasks should share a policy? One policy for all, one per group, one per task.

Trains each way with the same environment steps and updates per task and the same network, and prints a table: success
of every task, their mean, and its difference from one policy for all and from one per task, over seeds. `--groups` may
be given several times. What is trained already in `--runs` is read.

    python scripts/compare_groups.py --env toy_groups --runs DIR --seeds 5 \
        --groups straight-left,straight-middle,straight-right mirrored-left,mirrored-middle,mirrored-right

Flags of mtrl.train follow two dashes: -- --aggregator aligned. Their steps are those of one policy for all.
"""

import argparse
import shlex
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from training_runs import Run, mean_cell, provenance, train

from mtrl import cli
from mtrl.envs import task_names

Grouping = tuple[tuple[str, ...], ...]
"""The tasks of every policy."""

LONGEST_NAME = 100
"""Characters of task names that a directory may hold."""

SCHEDULES = ("total_steps", "eval_every", "log_every")
"""Settings in environment steps summed over tasks: they shrink with the number of tasks."""

HEAD = """# Which tasks of `{env}` should share a policy?

    python scripts/compare_groups.py {command}

The same environment steps and updates per task and the same network in every row; seeds 0 to {last}.
{provenance}

Success of the deterministic policy. *Last* is the evaluation at the end; *best* the highest of those during training,
which is chosen by its outcome. Differences are of the means at the end, seed by seed. In brackets Student's 95%
interval of the mean over seeds, cut where rates end."""


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", required=True, help="a suite, all of whose tasks are in the groups")
    parser.add_argument("--groups", nargs="+", action="append", required=True, metavar="TASK,TASK")
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="where the run directories are")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N-1 (default: 5)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: 1)")
    parser.add_argument("--output", type=Path, help="also write the table there")
    ours, theirs = _split(sys.argv[1:])
    args = parser.parse_args(ours)
    groupings = [tuple(tuple(group.split(",")) for group in grouping) for grouping in args.groups]
    tasks = task_names(args.env)
    for grouping in groupings:
        if sorted(task for group in grouping for task in group) != sorted(tasks):
            parser.error(f"--groups: expected every task of {args.env} once: {', '.join(tasks)}")
    args.runs.mkdir(parents=True, exist_ok=True)
    ways = {"joint": (tasks,), **{_name(grouping): grouping for grouping in groupings}}
    ways["separate"] = tuple((task,) for task in tasks)
    comparison = Comparison(args.runs, args.env, theirs)
    runs = {way: [comparison.runs(grouping, seed) for seed in range(args.seeds)] for way, grouping in ways.items()}
    distinct = list(dict.fromkeys(run for seeds in zip(*runs.values(), strict=True) for way in seeds for run in way))
    try:
        train(distinct, args.jobs)
    except (RuntimeError, ValueError) as problem:
        cli.error(str(problem))
    command = shlex.join(["DIR" if word == str(args.runs) else word for word in sys.argv[1:]])
    head = HEAD.format(env=args.env, command=command, last=args.seeds - 1, provenance=provenance(distinct))
    text = "\n".join([head, "", *table(tasks, runs)]) + "\n"
    print(text, end="")
    if args.output:
        args.output.write_text(text, encoding="utf-8")


class Comparison:
    """How each policy is trained."""

    def __init__(self, folder: Path, env: str, flags: Sequence[str]) -> None:
        self._folder, self._env, self._flags = folder, env, tuple(flags)
        self._tasks = task_names(env)
        settings = cli.parse(["--env", env, *flags]).trainer
        # A record each so many steps of one task, the same for all ways.
        self._steps_per_task = {name: getattr(settings, name) // len(self._tasks) for name in SCHEDULES}

    def runs(self, grouping: Grouping, seed: int) -> tuple[Run, ...]:
        """Return one training per group."""
        return tuple(self._run(tuple(task for task in self._tasks if task in group), seed) for group in grouping)

    def _run(self, group: tuple[str, ...], seed: int) -> Run:
        env = f"{self._env}:{','.join(group)}"
        name = f"{self._env}-{'_'.join(group)}"
        if len(name) > LONGEST_NAME:
            name = f"{self._env}-{len(group)}tasks-{zlib.crc32(name.encode()):08x}"
        flags = ["--env", env, "--seed", str(seed), *self._flags]
        for schedule, steps in self._steps_per_task.items():
            flags += [f"--{schedule.replace('_', '-')}", str(steps * len(group))]
        return Run(self._folder / f"{name}-{seed}", tuple(flags))


def table(tasks: Sequence[str], runs: dict[str, list[tuple[Run, ...]]]) -> list[str]:
    """Return the lines of the table: a row per way to train.

    Args:
        tasks: In the order of the columns.
        runs: The trainings of every way, seed by seed; all are compared with the first and with the last way.
    """
    references = (next(iter(runs)), list(runs)[-1])
    columns = ("policies", *tasks, "mean, last", "mean, best", *(f"minus {way}" for way in references))
    lines = ["| success | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    curves = {way: [_curves(trained) for trained in seeds] for way, seeds in runs.items()}
    # Of every seed, the mean over tasks at every evaluation.
    means = {
        way: [[sum(values) / len(tasks) for values in zip(*curve.values(), strict=True)] for curve in seeds]
        for way, seeds in curves.items()
    }
    for way, seeds in curves.items():
        cells = [mean_cell([curve[task][-1] for curve in seeds]) for task in tasks]
        cells += [mean_cell([mean[-1] for mean in means[way]]), mean_cell([max(mean) for mean in means[way]])]
        for reference in references:
            pairs = zip(means[way], means[reference], strict=True)
            cells.append(
                "" if way == reference else mean_cell([ours[-1] - theirs[-1] for ours, theirs in pairs], low=-1.0)
            )
        lines.append("| " + " | ".join([way, str(len(runs[way][0])), *cells]) + " |")
    return lines


def _curves(trained: Sequence[Run]) -> dict[str, list[float]]:
    """Return the success of every task at every evaluation, from the policies that have it among their tasks."""
    curves: dict[str, list[float]] = {}
    for run in trained:
        for record in run.records("evaluation"):
            for key, value in record.items():
                task = key.removeprefix("success/")
                if task not in (key, "mean", "worst"):
                    curves.setdefault(task, []).append(value)
    return curves


def _name(grouping: Grouping) -> str:
    return "; ".join(" ".join(group) for group in grouping)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split the command line at the two dashes."""
    cut = argv.index("--") if "--" in argv else len(argv)
    return argv[:cut], argv[cut + 1 :]


if __name__ == "__main__":
    main()
