"""Choose which tasks train together, from what runs measured: `python -m mtrl.group RUN [RUN ...] --groups K`.

Reads the transference between tasks in RUN/metrics.jsonl, which training writes with --transference-every, chooses at
most K groups by its mean over the runs (`mtrl.grouping`), and writes the commands that train them to RUN/groups/K.sh of
the first.

Exit codes: 0 done, 2 usage.
"""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import tyro
from jaxtyping import Float

from mtrl import arguments, envs
from mtrl.cli import Settings, UsageError, error, load
from mtrl.flags import printable
from mtrl.grouping import Grouping, choose_groups, member_values

if TYPE_CHECKING:
    from mtrl.schedule import Config

PARTS = ("critic", "actor")

_SUMMED_STEPS = ("total_steps", "eval_every", "log_every", "checkpoint_every")
"""Settings in environment steps summed over tasks: scaled, so that every task gets as many as in the run."""

_PER_TASK = ("weights", "leaks")
"""Options of aggregators that hold a number per task."""

_MOST_NAMED = 5
"""Pairs of tasks named in an error."""

_FIRST_COLUMN, _COLUMN = 8, 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choose which tasks train together, from the transference that runs measured; write commands to train them."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, as training leaves them; also while they train. Several, such as seeds, are averaged; settings
    and commands are those of the first."""
    groups: int
    """Choose at most so many groups."""
    part: Literal["critic", "actor", "both"] = "critic"
    """Whose transference: the critic's losses are positive, so that theirs is the published ratio. both: the mean of
    the two, each divided by its mean absolute value between different tasks."""
    from_step: int = 0
    """Leave out the records of earlier environment steps."""
    alone: float | None = None
    """Value of a task that trains alone, to be weighed against what others do for it; by default none may."""
    seconds: float = 60.0
    """Time limit of the search for the best choice."""


class Measured(NamedTuple):
    """What a run measured."""

    affinity: Float[np.ndarray, "source target"]
    """Mean over records."""
    num_records: int
    first_step: int
    last_step: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = arguments.read(Options, argv, "python -m mtrl.group")
    try:
        _main(options)
    except UsageError as problem:
        error(str(problem))
    return 0


def _main(options: Options) -> None:
    from mtrl.run_directory import write_whole

    if not options.runs:
        raise UsageError("expected at least one run directory, got none")
    first = options.runs[0]
    settings = load(first)
    tasks = envs.task_names(settings.env)
    _check(options, len(tasks))
    measured = read_all(options.runs, tasks, options.part, options.from_step)
    grouping = choose_groups(measured.affinity, options.groups, alone=options.alone, seconds=options.seconds)
    records = "1 record" if measured.num_records == 1 else f"{measured.num_records:,} records"
    others = f" and {len(options.runs) - 1} more" if len(options.runs) > 1 else ""
    about = (
        f"{printable(first.resolve().name)}{others}: transference of {options.part}, {records}, "
        f"steps {measured.first_step:,} to {measured.last_step:,}"
    )
    commands = [command(first, settings, grouping, index) for index in range(len(grouping.groups))]
    lines = [about, *table(grouping, measured.affinity, tasks, options.alone), *commands]
    file = first / "groups" / f"{options.groups}.sh"
    try:
        file.parent.mkdir(exist_ok=True)
        write_whole(file, "\n".join(["#!/bin/sh", f"# {about}", "set -e", *commands, ""]))
    except OSError as problem:
        raise UsageError(f"cannot write {file}: {problem.strerror}") from problem
    sys.stdout.write("\n".join([*lines, f"written to {file}", ""]))


def _check(options: Options, num_tasks: int) -> None:
    if not 1 <= options.groups <= num_tasks:
        raise UsageError(
            f"--groups: expected 1 to {num_tasks}, the number of tasks of {options.runs[0]}, got {options.groups}"
        )
    if options.from_step < 0:
        raise UsageError(f"--from-step: expected at least 0, got {options.from_step}")
    if options.alone is not None and not np.isfinite(options.alone):
        raise UsageError(f"--alone: expected a finite number, got {options.alone}")
    if not options.seconds > 0:
        raise UsageError(f"--seconds: expected a positive number, got {options.seconds}")


# ---------------------------------------------------------------------------------------------- what the run measured


def read_all(
    runs: Sequence[Path], tasks: Sequence[str], part: Literal["critic", "actor", "both"], from_step: int = 0
) -> Measured:
    """Return the mean over runs of what `read` finds in each.

    Raises:
        UsageError: As `read`, or a run has other tasks.
    """
    for run in runs[1:]:
        found = envs.task_names(load(run).env)
        if tuple(found) != tuple(tasks):
            raise UsageError(f"{run} has other tasks than {runs[0]}: {', '.join(found)} instead of {', '.join(tasks)}")
    measured = [read(run, tasks, part, from_step) for run in runs]
    return Measured(
        np.mean([one.affinity for one in measured], axis=0),
        sum(one.num_records for one in measured),
        min(one.first_step for one in measured),
        max(one.last_step for one in measured),
    )


def read(run: Path, tasks: Sequence[str], part: Literal["critic", "actor", "both"], from_step: int = 0) -> Measured:
    """Return the mean transference between the tasks of a run, entry by entry over the records that have a number.

    Raises:
        UsageError: No record has any, a matrix is not of these tasks, or a pair of tasks has no finite number.
    """
    parts = PARTS if part == "both" else (part,)
    records = [record for record in _records(run) if record["step"] >= from_step]
    records = [record for record in records if all(f"{name}_transference" in record for name in parts)]
    if not records:
        since = f" from step {from_step:,} on" if from_step else ""
        raise UsageError(
            f"{run} has no record of {' and '.join(parts)} transference{since}; training writes them with "
            "--transference-every N, the updates between measurements"
        )
    means = [_mean(run, [record[f"{name}_transference"] for record in records], tasks, name) for name in parts]
    if len(means) > 1:
        means = [_to_unit_size(mean) for mean in means]
    return Measured(np.mean(means, axis=0), len(records), records[0]["step"], records[-1]["step"])


def _records(run: Path) -> list[dict[str, Any]]:
    """Return the records of training; the last line may be torn where the run is going on or was cut off."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as problem:
        raise UsageError(f"cannot read {run / 'metrics.jsonl'}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise UsageError(
            f"{run / 'metrics.jsonl'} holds no lines of JSON, as training writes them: {problem}"
        ) from problem
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("kind") == "train" and isinstance(record.get("step"), int):
            records.append(record)
    return records


def _mean(run: Path, matrices: list[Any], tasks: Sequence[str], part: str) -> Float[np.ndarray, "source target"]:
    not_a_matrix = f"{run}: {part}_transference is not a matrix of the {len(tasks)} tasks of the run"
    try:
        stacked = np.array(matrices, dtype=np.float64)  # null becomes NaN
    except (ValueError, TypeError) as problem:  # rows of unequal lengths; words
        raise UsageError(not_a_matrix) from problem
    if stacked.shape[1:] != (len(tasks), len(tasks)):
        raise UsageError(not_a_matrix)
    is_number = np.isfinite(stacked)
    counts = is_number.sum(0)
    missing = np.argwhere((counts == 0) & ~np.eye(len(tasks), dtype=bool))
    if len(missing):
        pairs = ", ".join(f"{tasks[source]} on {tasks[target]}" for source, target in missing[:_MOST_NAMED])
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise UsageError(f"{run}: no record has a finite {part} transference of {pairs}{more}")
    return np.where(is_number, stacked, 0).sum(0) / np.maximum(counts, 1)


def _to_unit_size(affinity: Float[np.ndarray, "source target"]) -> Float[np.ndarray, "source target"]:
    between = np.abs(affinity[~np.eye(len(affinity), dtype=bool)])
    return affinity / between.mean() if between.any() else affinity


# --------------------------------------------------------------------------------------------------------- the output


def table(
    grouping: Grouping,
    affinity: Float[np.ndarray, "source target"],
    tasks: Sequence[str],
    alone: float | None = None,
) -> list[str]:
    """Return the lines to print: what each group is worth to each task, which serves it, all tasks in one, the mean."""
    members = np.array([[task in group for task in range(len(tasks))] for group in grouping.groups])
    values = member_values(affinity, members, alone)
    together = member_values(affinity, np.ones((1, len(tasks)), dtype=bool), alone)[0]
    width = max(_FIRST_COLUMN, *map(len, tasks))
    names = [f"group {index}" for index in range(1, len(members) + 1)]
    lines = [_row("task", [*names, "served by", "best", "together"], width)]
    for task, name in enumerate(tasks):
        served = grouping.served_by[task]
        cells = [_number(row[task]) if row[task] > -np.inf else "-" for row in values]
        lines.append(
            _row(name, [*cells, names[served], _number(grouping.values[task]), _number(together[task])], width)
        )
    lines.append(
        _row("mean", [""] * len(names) + ["", _number(grouping.score), _number(float(together.mean()))], width)
    )
    return [*lines, _proof(grouping)]


def _proof(grouping: Grouping) -> str:
    if grouping.is_exact:
        return "proven to be the best choice for these numbers"
    return f"not proven to be the best choice; none exceeds a mean of {_number(grouping.bound)}"


def _row(name: str, cells: Sequence[str], width: int) -> str:
    return f"{name:<{width}}" + "".join(f"{cell:>{_COLUMN}}" for cell in cells)


def _number(value: float) -> str:
    return f"{value:.3g}"


def command(run: Path, settings: Settings, grouping: Grouping, index: int) -> str:
    """Return the command that trains a group as the run trained: same settings, seeds, goals and steps per task.

    Raises:
        UsageError: The run gives all tasks of the group the weight 0.
    """
    group = grouping.groups[index]
    tasks = envs.task_names(settings.env)
    suite, _ = envs.parse(settings.env)
    place = run.resolve()
    name = re.sub(r"[^\w.-]+", "-", f"{place.name}-group-{index + 1}-of-{len(grouping.groups)}")
    words = ["python", "-m", "mtrl.train", "--preset", str(place / "config.yaml")]
    words += ["--env", f"{suite}:{','.join(tasks[task] for task in group)}"]
    words += _steps(settings.trainer, len(tasks), len(group))
    words += _restricted(settings, group, [tasks[task] for task in group])
    words += ["--run-dir", str(place.parent / name)]
    return shlex.join(words)


def _steps(config: "Config", num_tasks: int, num_members: int) -> list[str]:
    """Return the flags of steps summed over tasks, rounded up to whole steps of all environments."""
    from mtrl.schedule import STEPS_PER_TASK

    words = []
    for name in _SUMMED_STEPS:
        total = getattr(config, name)
        if total is None:
            total = STEPS_PER_TASK * num_tasks
        vector_steps = -(-total // (num_tasks * config.envs_per_task))
        words += [f"--{name.replace('_', '-')}", str(vector_steps * num_members * config.envs_per_task)]
    return words


def _restricted(settings: Settings, group: Sequence[int], names: Sequence[str]) -> list[str]:
    """Return the flags of what the aggregators hold per task, for the tasks of the group."""
    words = []
    for part in PARTS:
        config = settings.configs()[f"{part}.aggregator"]
        for name in _PER_TASK:
            numbers = getattr(config, name, None)
            if numbers is None:
                continue
            if name == "weights" and not any(numbers[task] for task in group):
                raise UsageError(f"the run's --{part}.aggregator.weights are 0 for all of {', '.join(names)}, a group")
            words += [f"--{part}.aggregator.{name}", *(str(numbers[task]) for task in group)]
    return words


if __name__ == "__main__":
    sys.exit(main())
