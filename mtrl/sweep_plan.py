"""The runs of a sweep: their command lines, each checked as training checks it, and how far each has got."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mtrl import envs
from mtrl.cli import OUTPUT_FILE, UsageError, read
from mtrl.flags import flag_of
from mtrl.launchers import Job

OWN = {
    "--aggregator": "--aggregators a,b,c",
    "--seed": "--seeds 0:5",
    "--run-dir": "--sweep-dir",
    "--resume": "nothing: the same command continues what is unfinished",
}
"""Flags of training that the sweep sets itself -> what to give instead."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the sweep."""

    aggregator: str
    seed: int
    run_dir: Path
    flags: tuple[str, ...]
    """Of training, the folder and `--resume auto` included."""
    total_steps: int
    """Environment steps, summed over tasks."""
    steps_per_vector_step: int
    """Environment steps of one step of all environments, by which a run may get further than its end."""
    evaluates: bool
    """Whether it ends with an evaluation."""

    @property
    def name(self) -> str:
        """Of the run, unique in the sweep."""
        return self.run_dir.name

    @property
    def log(self) -> Path:
        """The file that gets what the run prints."""
        return self.run_dir / OUTPUT_FILE

    @property
    def line(self) -> str:
        """What to type to train this run alone."""
        return shlex.join(["python", "-m", "mtrl.train", *self.flags])

    def job(self, python: str) -> Job:
        """Return what a launcher starts."""
        return Job(self.name, (python, "-m", "mtrl.train", *self.flags), self.log)

    def steps_saved(self) -> int:
        """Return the environment steps of the newest checkpoint; 0 without one."""
        from mtrl.checkpoint import by_step

        return max(by_step(self.run_dir / "checkpoints"), default=0)

    def is_finished(self) -> bool:
        """Whether the run has come to its end, all steps taken, recorded, evaluated and saved, or gone past it."""
        from mtrl.checkpoint import latest, load

        if self.steps_saved() < self.total_steps:
            return False
        newest = latest(self.run_dir / "checkpoints")
        assert newest is not None
        try:
            state = load(newest, "trainer")
        except (ValueError, FileNotFoundError):  # damaged: training goes back to the one before
            return False
        if state["step_count"] >= self.total_steps + self.steps_per_vector_step:  # it once had more to do
            return True
        due = ["logged_at", "evaluated_at"] if self.evaluates else ["logged_at"]
        return all(state[name] == state["step_count"] for name in due)


def parse_names(text: str) -> tuple[str, ...]:
    """Read `a,b,c`.

    Raises:
        UsageError: A name is empty or repeated.
    """
    names = tuple(text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"--aggregators: expected names separated by commas, each once, got {text!r}")
    return names


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `0:5`, from 0 to 4, or `0,1,7`, or `3`.

    Raises:
        UsageError: It is neither, is empty, or a seed is repeated.
    """
    problem = UsageError(f"--seeds: expected FROM:TO without TO, as 0:5, or a list as 0,1,7, each once; got {text!r}")
    first, colon, end = text.partition(":")
    words = (first, end) if colon else text.split(",")
    if not all(word.isascii() and word.isdigit() for word in words):
        raise problem
    numbers = [int(word) for word in words]
    seeds = tuple(range(*numbers)) if colon else tuple(numbers)
    if not seeds or len(set(seeds)) < len(seeds):
        raise problem
    return seeds


def plan(
    aggregators: Sequence[str], seeds: Sequence[int], flags: Sequence[str], sweep_dir: Path | None, cpus: int
) -> list[Run]:
    """Return all runs, methods within seeds, so that the first seed of every method is there early.

    Args:
        aggregators: Names.
        seeds: Numbers.
        flags: Further flags of training, passed on as they are.
        sweep_dir: Where the runs' folders are; by default sweeps/ENV.
        cpus: Cores of each run: threads of the learner and environment processes, where neither flags nor presets say.

    Raises:
        UsageError: Training would refuse a run.
    """
    for word in flags:
        name = "--" + word.partition("=")[0][2:].replace("_", "-")
        if word.startswith("--") and name in OWN:
            raise UsageError(f"{name} is set by the sweep; give {OWN[name]}")
    return [_run(aggregator, seed, flags, sweep_dir, cpus) for seed in seeds for aggregator in aggregators]


def _run(aggregator: str, seed: int, flags: Sequence[str], sweep_dir: Path | None, cpus: int) -> Run:
    from mtrl.schedule import STEPS_PER_TASK

    words = [*flags, "--aggregator", aggregator, "--seed", str(seed)]
    try:
        settings = read(words)
        folder = sweep_dir or Path("sweeps") / _file_name(settings.env)
        run_dir = folder / f"{_file_name(aggregator)}-{seed}"
        started_with = _started_with(run_dir)
        for name, cores in (("threads", started_with.get("threads") or cpus), ("workers", cpus)):
            if getattr(settings.trainer, name) is None:
                words += [flag_of(name), str(cores)]
        words += ["--run-dir", str(run_dir), "--resume", "auto"]
        settings = read(words)
    except UsageError as problem:
        raise UsageError(f"{aggregator}-{seed}: {problem}") from problem
    num_tasks = len(envs.task_names(settings.env))
    return Run(
        aggregator=aggregator,
        seed=seed,
        run_dir=run_dir,
        flags=tuple(words),
        total_steps=settings.trainer.total_steps or STEPS_PER_TASK * num_tasks,
        steps_per_vector_step=num_tasks * settings.trainer.envs_per_task,
        evaluates=settings.trainer.eval_every > 0,
    )


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)


def _started_with(run_dir: Path) -> dict[str, Any]:
    """Return the settings of the run in the folder; none where it has not begun, or where training will refuse them.

    The number of threads may not change when a run is continued, whatever the sweep would give it today.
    """
    try:
        found = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    except NotADirectoryError as problem:
        raise UsageError(f"{run_dir} is in the way: expected a folder there, or nothing") from problem
    except (FileNotFoundError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
