"""Runs that differ only in their seed are one method; what is compared of methods, and at which step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mtrl.flags import UsageError
from mtrl.report.runs import NotBegunError, Run, Series, per_task, read

FEW_SEEDS = 5
"""Below so many seeds an interval over them says little, and the pictures say so."""

_AGGREGATORS = ("critic.aggregator", "actor.aggregator")

NO_METHOD = (
    "seed", "total_steps", "max_hours", "device", "workers", "threads", "log_every", "checkpoint_every",
    "on_nonfinite", "replay.device", "env.engine",
)  # fmt: skip
"""Settings that do not make another method: none changes what is learned up to a step, beyond rounding."""

_SAME = ("env", "goal_seed")
"""Settings without which runs cannot stand side by side."""


_SOFTWARE = ("torch", "metaworld", "mujoco")
"""Packages whose versions may change the numbers."""

_COMMIT_DIGITS = 10

_MOST_LISTED = 6
"""Runs named in one note."""


@dataclass(frozen=True)
class Method:
    """Runs that differ only in their seed."""

    label: str
    runs: tuple[Run, ...]

    @cached_property
    def success(self) -> Series | None:
        """Return the success of evaluations by task, run and step."""
        return per_task(self.runs, "evaluation", "success")

    @property
    def num_seeds(self) -> int:
        """Return the number of different seeds, of the runs that were evaluated if any was."""
        evaluated = [run for run in self.runs if run.records["evaluation"]]
        return len({run.seed for run in evaluated or self.runs})

    def success_at(self, step: int) -> Float[np.ndarray, "task run"]:
        """Return the success of the evaluation of that step, which every run has that was evaluated."""
        assert self.success is not None
        return self.success.values[:, :, list(self.success.steps).index(step)]


@dataclass(frozen=True)
class Comparison:
    """The methods of one report."""

    methods: tuple[Method, ...]
    tasks: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """Return the runs of all methods."""
        return tuple(run for method in self.methods for run in method.runs)

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Return the steps at which every run that was evaluated was evaluated, rising."""
        return _common_steps(self.runs)

    @property
    def is_at_end(self) -> bool:
        """Return whether methods are compared by evaluations at the end of every run."""
        return bool(self.steps) and all(self.steps[-1] >= _total_steps(run) for run in self.runs)

    @property
    def short_tasks(self) -> list[str]:
        """Return the names as pictures show them."""
        return [task.removesuffix("-v3") for task in self.tasks]

    @property
    def few_seeds(self) -> str:
        """Return a warning that names the methods with fewer than five seeds; empty where there are none."""
        few = [(method.label, method.num_seeds) for method in self.methods if method.num_seeds < FEW_SEEDS]
        if not few:
            return ""
        counts = {count for _, count in few}
        who = "every method" if len(few) == len(self.methods) else f"{len(few)} of {len(self.methods)} methods"
        if len(few) <= 3:
            who = ", ".join(f"{label}: {_count(count, 'seed')}" for label, count in few)
        else:
            who += f": {min(counts)} to {max(counts)} seeds" if len(counts) > 1 else f": {_count(counts.pop(), 'seed')}"
        return f"{who} — fewer than five seeds, too few to tell methods apart"


def compare(paths: Sequence[Path]) -> Comparison:
    """Read the runs and sort them into methods, in the order of their first run.

    Raises:
        UsageError: A run cannot be read or is named twice, or the runs are not of the same tasks and goals.
    """
    if not paths:
        raise UsageError("expected at least one run directory, got none")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a run is named twice: its results are not independent of themselves")
    runs, begun = _read(paths)
    for run in runs[1:]:
        for key in _SAME:
            if run.config.get(key) != runs[0].config.get(key):
                raise UsageError(
                    f"{run.path} has {key} {run.config.get(key)} and {runs[0].path} has {runs[0].config.get(key)}: "
                    "compare runs of the same tasks and goals"
                )
        if run.tasks != runs[0].tasks:
            raise UsageError(f"{run.path} records other tasks than {runs[0].path}")
    methods = _methods(runs)
    notes = [f"nothing recorded yet, and left out: {_listed(begun)}"] if begun else []
    return Comparison(methods, runs[0].tasks, (*notes, *_notes(methods, runs)))


def _read(paths: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Return the runs, and the names of those that have recorded nothing yet.

    Raises:
        UsageError: A run cannot be read, or none has recorded anything.
    """
    runs: list[Run] = []
    begun: dict[str, str] = {}
    for path in paths:
        try:
            runs.append(read(path))
        except NotBegunError as problem:
            begun[path.resolve().name] = str(problem)
    if not runs:
        raise UsageError(f"no run has recorded anything yet: {'; '.join(list(begun.values())[:_MOST_LISTED])}")
    return runs, list(begun)


def _methods(runs: Sequence[Run]) -> tuple[Method, ...]:
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        key = tuple(sorted((name, repr(value)) for name, value in run.config.items() if name not in NO_METHOD))
        groups.setdefault(key, []).append(run)
    names = {
        key: " / ".join(dict.fromkeys(group[0].config[part] for part in _AGGREGATORS)) for key, group in groups.items()
    }
    labels = {}
    for key, name in names.items():
        differing = _differing([dict(other) for other in groups if names[other] == name])
        options = [f"{option}={_plain(groups[key][0].config.get(option))}" for option in differing]
        labels[key] = " ".join([name, *options])
    return tuple(Method(labels[key], tuple(group)) for key, group in groups.items())


def _differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the settings that are not the same in all."""
    names = dict.fromkeys(name for config in configs for name in config)
    return [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]


def _common_steps(runs: Iterable[Run]) -> tuple[int, ...]:
    """Return the steps at which every run that was evaluated was evaluated."""
    found = [{record["step"] for record in run.records["evaluation"]} for run in runs]
    return tuple(sorted(set.intersection(*filter(None, found)))) if any(found) else ()


def _notes(methods: Sequence[Method], runs: Sequence[Run]) -> list[str]:
    """Return what a reader must know before comparing."""
    notes = [f"{run.name}: {note}" for run in runs for note in run.notes]
    notes += _differences(runs)
    notes += _software(runs)
    for method in methods:
        if method.success is None and any(run.records["evaluation"] for run in method.runs):
            notes.append(f"{method.label}: left out of success, its runs were never evaluated at the same step")
        if len({run.seed for run in method.runs}) < len(method.runs):
            notes.append(f"{method.label}: a seed occurs more than once, so that its runs are not independent")
    notes += _progress(runs)
    if any("+changes" in str(start.get("commit")) for run in runs for start in run.starts):
        notes.append("+changes after a commit: the files of the checkout were not those of the commit")
    return notes


def _differences(runs: Sequence[Run]) -> list[str]:
    """Tell in which settings but the seed and those of the aggregators runs differ."""
    names = [name for name in _differing([run.config for run in runs]) if not name.startswith(("seed", *_AGGREGATORS))]
    found = [f"{name}: {', '.join(sorted({_plain(run.config.get(name)) for run in runs}))}" for name in names]
    return [f"settings differ in more than seed and aggregator: {'; '.join(found)}"] if found else []


def _software(runs: Sequence[Run]) -> list[str]:
    """Tell in which commits and versions runs, or the starts of one run, differ."""
    starts = [start for run in runs for start in run.starts]
    found = {"commit": {str(start["commit"])[:_COMMIT_DIGITS] for start in starts if start.get("commit")}}
    for package in _SOFTWARE:
        found[package] = {version for start in starts if (version := start.get("versions", {}).get(package))}
    differing = [f"{name}: {', '.join(sorted(values))}" for name, values in found.items() if len(values) > 1]
    return [f"made by different software: {'; '.join(differing)}"] if differing else []


def _progress(runs: Sequence[Run]) -> list[str]:
    """Tell which runs are not at their end, and what follows for the comparison."""
    shares = {run.name: run.step / _total_steps(run) for run in runs if run.step < _total_steps(run)}
    notes = (
        [f"not at their end: {_listed([f'{name} ({share:.0%})' for name, share in shares.items()])}"] if shares else []
    )
    last = {run.name: max((record["step"] for record in run.records["evaluation"]), default=0) for run in runs}
    without = [name for name, step in last.items() if step == 0]
    if without:
        notes.append(f"without an evaluation, and left out of success: {_listed(without)}")
    steps = _common_steps(runs)
    if not steps and len(without) < len(runs):
        notes.append("no step at which every run was evaluated: methods are not compared, each has its own last step")
    elif steps and max(last.values()) > steps[-1]:
        notes.append(
            f"some runs were evaluated beyond step {steps[-1]:,}, the last that all share: they are compared there"
            f"{_further(runs)}"
        )
    return notes


def _further(runs: Sequence[Run]) -> str:
    """Tell how far runs at their end could be compared without the others."""
    ended = [run for run in runs if run.step >= _total_steps(run)]
    steps = _common_steps(ended)
    others = [run.name for run in runs if run.step < _total_steps(run) and run.records["evaluation"]]
    return f"; at step {steps[-1]:,} without {_listed(others)}" if steps and others else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


def _total_steps(run: Run) -> int:
    if run.config.get("total_steps") is not None:
        return run.config["total_steps"]
    from mtrl.schedule import STEPS_PER_TASK

    return STEPS_PER_TASK * len(run.tasks)


def _plain(value: object) -> str:
    return "null" if value is None else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
