"""Read run directories: what each was told, where it ran, what it recorded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jaxtyping import Float

from mtrl.cli import OUTPUT_FILE
from mtrl.flags import UsageError

Record = dict[str, Any]

_NEEDED = ("metrics.jsonl", "config.yaml")

_TASKS_OF = {"evaluation": "success/", "train": "train_success/"}
"""By kind of record, what the names of values begin with that every task has."""

_OVER_TASKS = ("mean", "worst")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run directory."""

    path: Path
    name: str
    config: dict[str, Any]
    starts: tuple[Record, ...]
    """What environment.json says of every start."""
    tasks: tuple[str, ...]
    records: dict[str, tuple[Record, ...]]
    """Of training ("train") and of evaluations during it ("evaluation"), steps rising."""
    whole: Record | None
    """The newest evaluation of every goal of every task by `mtrl.evaluate`."""
    notes: tuple[str, ...]
    """What a reader must know of the files."""

    @property
    def seed(self) -> int:
        """Return what tells it from other runs of its method."""
        return self.config["seed"]

    @property
    def step(self) -> int:
        """Return the environment steps at the last record."""
        return max(records[-1]["step"] for records in self.records.values() if records)


class NotBegunError(UsageError):
    """The folder of a run that has recorded nothing yet."""


class Series(NamedTuple):
    """What several runs recorded at the steps they share."""

    steps: np.ndarray
    """Environment steps, summed over tasks."""
    values: np.ndarray
    """By name, run and step; further axes are those of the values. NaN where a value was not finite."""


def read(path: Path) -> Run:
    """Read one run, also while it is written.

    Raises:
        UsageError: The folder is no run directory, or a `NotBegunError` one.
    """
    if (path / OUTPUT_FILE).is_file() and not (path / "config.yaml").exists():  # of a sweep, a moment ago
        raise NotBegunError(f"{path} has no settings yet")
    for name in _NEEDED:
        if not (path / name).is_file():
            raise UsageError(
                f"{path} is not a run directory: expected {' and '.join(_NEEDED)} there, {name} is missing"
            )
    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path / 'config.yaml'} is not YAML: {' '.join(str(problem).split())}") from problem
    if not isinstance(config, dict) or not {"env", "critic.aggregator", "actor.aggregator", "seed"} <= config.keys():
        raise UsageError(f"{path / 'config.yaml'}: expected the settings of a run, with env, aggregators and seed")
    records, num_unreadable = _records(path / "metrics.jsonl")
    tasks = _task_names(records)
    if not tasks:
        raise NotBegunError(f"{path / 'metrics.jsonl'} has no record of training or evaluation yet")
    notes = [f"{num_unreadable} lines of metrics.jsonl cannot be read and are left out"] if num_unreadable else []
    starts = _load(path / "environment.json")
    if not starts or not isinstance(starts, list):
        notes.append("environment.json is missing or torn: versions, commit, command and hardware are unknown")
    return Run(
        path=path,
        name=path.resolve().name,
        config=config,
        starts=tuple(starts) if isinstance(starts, list) else (),
        tasks=tasks,
        records=records,
        whole=_newest_whole(path / "evaluations", tasks),
        notes=tuple(notes),
    )


def series(runs: Sequence[Run], kind: str, names: Sequence[str]) -> Series | None:
    """Return the values of that name at the steps where every run has all of them; None where there is no such step.

    Runs that have none at all, such as those that have just begun, are left out.
    """
    found = [
        {
            record["step"]: [record[name] for name in names]
            for record in run.records[kind]
            if record.keys() >= set(names)
        }
        for run in runs
    ]
    found = [one for one in found if one]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    if not steps:
        return None
    values = np.array([[one[step] for step in steps] for one in found], dtype=np.float64)  # null becomes NaN
    return Series(np.array(steps), np.moveaxis(values, 2, 0))


def per_task(runs: Sequence[Run], kind: str, name: str) -> Series | None:
    """Return the same for a value that every task has, by task, run and step."""
    return series(runs, kind, [f"{name}/{task}" for task in runs[0].tasks])


def goal_success(run: Run) -> Float[np.ndarray, "task goal"] | None:
    """Return the success of the newest whole evaluation, or None."""
    if run.whole is None:
        return None
    grid = np.full((len(run.tasks), run.whole["num_goals"]), np.nan)
    for episode in run.whole["episodes"]:
        grid[run.tasks.index(episode["task"]), episode["goal"]] = episode["success"]
    return grid


def _records(file: Path) -> tuple[dict[str, tuple[Record, ...]], int]:
    """Return the records by kind, and how many lines but the last cannot be read: the last may be half written.

    A run that is continued cuts off what it wrote after its checkpoint. Where that stands in the file all the same,
    as in one put together from copies, the later record of a step counts, and none beyond it.
    """
    kept: dict[str, list[Record]] = {kind: [] for kind in _TASKS_OF}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    num_unreadable = 0
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            kind, step = record["kind"], record["step"]
        except (ValueError, KeyError, TypeError):
            num_unreadable += number < len(lines)
            continue
        for other, records in kept.items():
            while records and (records[-1]["step"] > step or (records[-1]["step"] == step and other == kind)):
                records.pop()
        if kind in kept:
            kept[kind].append(record)
    return {kind: tuple(records) for kind, records in kept.items()}, num_unreadable


def _task_names(records: dict[str, tuple[Record, ...]]) -> tuple[str, ...]:
    """Return the tasks in their order."""
    for kind, prefix in _TASKS_OF.items():
        if records[kind]:
            names = [name.removeprefix(prefix) for name in records[kind][-1] if name.startswith(prefix)]
            return tuple(name for name in names if name not in _OVER_TASKS)
    return ()


def _newest_whole(folder: Path, tasks: tuple[str, ...]) -> Record | None:
    """Return the newest evaluation of everything; those of a part have longer names."""
    for file in sorted(folder.glob("*.json"), reverse=True):
        record = _load(file)
        if isinstance(record, dict) and record.get("is_whole") is True and tuple(record["tasks"]) == tasks:
            return record
    return None


def _load(file: Path) -> Any:
    """Return what the JSON file holds; None where it is missing or torn."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
