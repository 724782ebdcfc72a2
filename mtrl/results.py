"""What an evaluation found: as a record for a file, and as a table for a person."""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtrl.evaluator import Evaluation
from mtrl.run_directory import describe_environment
from mtrl.statistics import CONFIDENCE, wilson

_LONGEST_LIST = 60
"""Characters of task names that a file name may hold."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which episodes an evaluation has."""

    tasks: tuple[str, ...]
    num_goals: int
    """The first goals of each task."""
    episodes: int = 1
    """Episodes of every goal."""
    seed: int | None = None
    """Of sampled actions; None for the deterministic policy."""
    is_whole: bool
    """Whether this is every goal of every task once, with the deterministic policy."""

    def file_name(self, step: int) -> str:
        """Return where the record belongs in the folder of evaluations: every scope has a name of its own."""
        if self.is_whole:
            return f"{step:012d}.json"
        policy = "deterministic" if self.seed is None else f"sampled{self.seed}"
        named = "+".join(self.tasks)
        tasks = re.sub(r"[^\w.+-]", "-", named)  # an id of Gymnasium may hold / and :
        if len(named) > _LONGEST_LIST:
            tasks = f"{len(self.tasks)}tasks"
        if tasks != named:
            tasks += f"-{zlib.crc32(named.encode()):08x}"
        return f"{step:012d}-{policy}-{self.num_goals}goals-{self.episodes}episodes-{tasks}.json"


def make_record(scope: Scope, found: Evaluation, settings: Mapping[str, object]) -> dict[str, Any]:
    """Return the evaluation as what JSON can hold.

    Args:
        scope: Which episodes there were.
        found: Their results; the tasks in the order of `scope`.
        settings: What else determined them: run, step, environment, ...
    """
    return {
        **settings,
        "is_whole": scope.is_whole,
        "policy": "deterministic" if scope.seed is None else "sampled",
        "action_seed": scope.seed,
        "num_goals": scope.num_goals,
        "episodes_per_goal": scope.episodes,
        "confidence": CONFIDENCE,
        "mean": _summary(found, slice(None)),
        "tasks": {name: _summary(found, slice(task, task + 1)) for task, name in enumerate(scope.tasks)},
        "episodes": [
            {
                "task": name,
                "goal": int(goal),
                "success": bool(found.success[task, column]),
                "success_at_end": bool(found.success_at_end[task, column]),
                "return": float(found.returns[task, column]),
            }
            for task, name in enumerate(scope.tasks)
            for column, goal in enumerate(found.goals)
        ],
        "environment": describe_environment(),
    }


def to_json(record: dict[str, Any]) -> str:
    """Write the record with one line per episode."""
    lines = ",\n  ".join(json.dumps(episode) for episode in record["episodes"])
    rest = json.dumps(record | {"episodes": []}, indent=1)
    return rest.replace('"episodes": []', f'"episodes": [\n  {lines}\n ]') + "\n"


def is_whole(file: Path) -> bool:
    """Tell whether the file holds every goal of every task; False where it is no record."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("is_whole") is True


def table(record: dict[str, Any]) -> list[str]:
    """Return the lines to print: what was evaluated, one line per task, the mean over tasks; of one task its goals."""
    rows = {name: _row(summary) for name, summary in record["tasks"].items()}
    rows |= _goal_rows(record["episodes"]) if len(rows) == 1 else {"mean": _row(record["mean"])}
    width = max(map(len, rows))
    interval = f"{100 * record['confidence']:.0f}% interval"
    header = f"{'task':<{width}}  success  {interval:<14}  at end  {interval:<14}  {'return':>10}  episodes"
    goals = "1 goal" if record["num_goals"] == 1 else f"{record['num_goals']} goals"
    title = f"{record['run']}, step {record['step']:,}: {record['policy']} policy, {goals} per task"
    return [title, header, *(f"{name:<{width}}  {row}" for name, row in rows.items())]


def _summary(found: Evaluation, tasks: slice) -> dict[str, object]:
    """Return the rates of some tasks together, as many episodes of each, with intervals over their goals.

    Several episodes of one goal are one trial, of which their mean is the outcome: they are not independent.
    """
    num_trials = found.success[tasks].size * np.unique(found.goals).size // len(found.goals)
    summary: dict[str, object] = {"num_episodes": int(found.success[tasks].size)}
    for name, solved in (("success", found.success[tasks]), ("success_at_end", found.success_at_end[tasks])):
        summary[name] = float(np.mean(solved))
        summary[f"{name}_interval"] = list(wilson(float(np.mean(solved)) * num_trials, num_trials))
    return summary | {"return": float(np.mean(found.returns[tasks]))}


def _row(summary: dict[str, Any]) -> str:
    intervals = [_interval(summary[f"{name}_interval"]) for name in ("success", "success_at_end")]
    return (
        f"{summary['success']:7.3f}  {intervals[0]}  {summary['success_at_end']:6.3f}  {intervals[1]}  "
        f"{summary['return']:10.1f}  {summary['num_episodes']:8,}"
    )


def _goal_rows(episodes: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return one row per goal, without intervals, from the episodes of one task."""
    rows = {}
    for goal in dict.fromkeys(episode["goal"] for episode in episodes):
        own = [episode for episode in episodes if episode["goal"] == goal]
        success, at_end, returns = (
            sum(episode[name] for episode in own) / len(own) for name in ("success", "success_at_end", "return")
        )
        rows[f"goal {goal}"] = f"{success:7.3f}  {'':<14}  {at_end:6.3f}  {'':<14}  {returns:10.1f}  {len(own):8,}"
    return rows


def _interval(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"
