"""The command line of `mtrl.evaluate`: what to evaluate, which checkpoint, where to write it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from mtrl import envs
from mtrl.cli import Settings, UsageError, check_device, load

if TYPE_CHECKING:
    from mtrl.results import Scope


@dataclass(frozen=True, kw_only=True)
class Options:
    """Evaluate a trained run: every goal of every task once, with the deterministic policy."""

    run: tyro.conf.Positional[Path]
    """Run directory, as training leaves it; also while it trains."""
    task: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Evaluate this task only; repeat it, or separate several by commas."""
    goals: int | None = None
    """Evaluate the first so many goals of each task; by default all."""
    episodes: int = 1
    """Episodes of every goal; more than one needs --stochastic."""
    stochastic: bool = False
    """Sample the actions, as in training."""
    seed: int | None = None
    """Seed of sampled actions; 0 by default."""
    workers: int | None = None
    """Environment processes; by default as the run has, else one per usable core."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes CUDA where there is one."""
    checkpoint: int | None = None
    """Step of the checkpoint to evaluate; by default the newest."""
    json: Path | None = None
    """File to write; by default RUN/evaluations/STEP.json, or a name beside it where not everything is evaluated."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the options come to for the run they name."""

    settings: Settings
    """Of the run; workers and device as asked for."""
    scope: "Scope"
    step: int
    checkpoint: Path
    file: Path
    """Where the record will be written."""


def plan(options: Options) -> Plan:
    """Check the options against each other and the run.

    Raises:
        UsageError: They do not fit; the message names the flag.
    """
    settings = load(options.run)
    check_device("--device", options.device)
    _check_numbers(options)
    workers = options.workers or settings.trainer.workers
    trainer = dataclasses.replace(settings.trainer, workers=workers, device=options.device)
    scope = _scope(options, settings)
    step, checkpoint = choose_checkpoint(options.run, options.checkpoint)
    return Plan(
        settings=dataclasses.replace(settings, trainer=trainer),
        scope=scope,
        step=step,
        checkpoint=checkpoint,
        file=_file(options, scope, step),
    )


def chosen_tasks(env: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tasks of the environment `env` that --task names, in its order; all where it names none.

    Raises:
        UsageError: It has no such task; the message lists its tasks and the nearest one.
    """
    all_tasks = envs.task_names(env)
    named = [name for word in words for name in word.split(",")] or all_tasks
    for name in named:
        try:
            envs.check_task(env, name)
        except ValueError as problem:
            raise UsageError(f"--task: {problem}") from problem
    return tuple(name for name in all_tasks if name in named)


def check_goals(settings: Settings, num_goals: int) -> None:
    """Raise unless every task of the run has so many goals.

    Raises:
        UsageError: They have fewer.
    """
    most = envs.num_goals(settings.env, settings.env_config)
    if num_goals > most:
        raise UsageError(f"--goals: expected at most {most}, the goals of a task of {settings.env}, got {num_goals}")


def choose_checkpoint(run: Path, step: int | None) -> tuple[int, Path]:
    """Return step and folder of the run's checkpoint of that step, of its newest where that is None.

    Raises:
        UsageError: There is none.
    """
    from mtrl.checkpoint import by_step

    found = by_step(run / "checkpoints")
    if not found:
        raise UsageError(f"{run} has no complete checkpoint yet; training writes one every --checkpoint-every")
    step = max(found) if step is None else step
    if step not in found:
        steps = ", ".join(map(str, found))
        raise UsageError(f"--checkpoint: {run} has no checkpoint of step {step}, only of {steps}")
    return step, found[step]


def _check_numbers(options: Options) -> None:
    for name, least in (("goals", 1), ("episodes", 1), ("seed", 0), ("workers", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"--{name}: expected at least {least}, got {value}")
    if options.episodes > 1 and not options.stochastic:
        raise UsageError(
            f"--episodes {options.episodes} needs --stochastic: the deterministic policy repeats one goal's episode "
            "step by step, so that more of them tell nothing new"
        )
    if options.seed is not None and not options.stochastic:
        raise UsageError("--seed needs --stochastic: the deterministic policy draws no numbers")


def _scope(options: Options, settings: Settings) -> "Scope":
    from mtrl.results import Scope

    tasks = chosen_tasks(settings.env, options.task)
    all_goals = envs.num_goals(settings.env, settings.env_config)
    num_goals = options.goals or all_goals
    check_goals(settings, num_goals)
    return Scope(
        tasks=tasks,
        num_goals=num_goals,
        episodes=options.episodes,
        seed=(options.seed or 0) if options.stochastic else None,
        is_whole=tasks == envs.task_names(settings.env) and num_goals == all_goals and not options.stochastic,
    )


def _file(options: Options, scope: "Scope", step: int) -> Path:
    """Choose the file to write. A part of an evaluation never takes the place of a whole one."""
    from mtrl.results import is_whole

    if options.json is None:
        return options.run / "evaluations" / scope.file_name(step)
    if not options.json.parent.is_dir() or options.json.is_dir():
        raise UsageError(f"--json: expected a file in a folder that exists, got {options.json}")
    if not scope.is_whole and is_whole(options.json):
        raise UsageError(f"--json: {options.json} holds a whole evaluation, and this one is not; name another file")
    return options.json
