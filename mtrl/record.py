"""Film what a run has learned: `python -m mtrl.record RUN --task reach-v3`.

One task, or all in a grid where none is named; a tile's frame turns green from the step that solves its episode. The
episodes are those of `mtrl.evaluate`: the deterministic policy of the newest checkpoint, goal after goal.

Exit codes: 0 done, 2 usage or no pictures here, 3 a number is not finite, 4 environments failed, 130 SIGINT.
"""

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from mtrl import arguments, envs
from mtrl.cli import Settings, UsageError, check_device, load
from mtrl.envs.metaworld.tasks import STEPS_PER_SECOND  # only these tasks can be seen
from mtrl.evaluate_options import check_goals, choose_checkpoint, chosen_tasks
from mtrl.failures import report_failures
from mtrl.registry import check_name

if TYPE_CHECKING:
    from mtrl.film import Clips
    from mtrl.interfaces import VectorEnv
    from mtrl.video import Frame

TILE, GRID, SMALLEST_TILE = 240, 960, 96
"""Pixels: of a tile by default, of a grid's width at most, and of the tiles of a grid that has many."""

MOST_NAMED = 3
"""Tasks by which a file is named; more are counted."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Film what a run has learned: one task, or all of them in a grid."""

    run: tyro.conf.Positional[Path]
    """Run directory, as training leaves it; also while it trains."""
    task: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Film this task only; repeat it, or separate several by commas."""
    goals: int = 1
    """Film the first so many goals of each task, one after the other."""
    checkpoint: int | None = None
    """Step of the checkpoint to film; by default the newest."""
    camera: str | None = None
    """From where: corner2 by default, which shows all of every scene."""
    size: int | None = None
    """Width and height of a tile in pixels; by default 240, and less where a grid would be wider than 960."""
    every: int = 4
    """Steps from one picture to the next; 4 make 20 pictures a second. The pace is always that of the real robot."""
    whole: bool = False
    """Go on to the time limit; by default a task stands still a second after it is solved."""
    format: Literal["mp4", "gif"] | None = None
    """Kind of file; by default mp4, or gif where there is no imageio-ffmpeg (extra: video)."""
    workers: int | None = None
    """Environment processes; by default as the run has, else one per usable core."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes CUDA where there is one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the options come to for the run they name."""

    settings: Settings
    """Of the run; workers and device as asked for."""
    tasks: tuple[str, ...]
    camera: str
    size: int
    format: str
    checkpoint: Path
    file: Path
    """Where the video will be written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in training: leaves the cores to the environments
    options = arguments.read(Options, argv, "python -m mtrl.record")
    return report_failures(lambda: _main(options))


def _main(options: Options) -> None:
    from mtrl.film import solved
    from mtrl.loggers import say

    chosen = plan(options)
    clips = film(options, chosen)
    write(options, chosen, clips)
    for (task, goal), clip in clips.items():
        say(f"{task}, goal {goal}: " + (f"solved at step {clip.solved_at}" if clip.solved_at else "not solved"))
    say(f"{solved(clips)} of {len(clips)} episodes solved; written to {chosen.file}")


def plan(options: Options) -> Plan:
    """Check the options against the run and this machine.

    Raises:
        UsageError: They do not fit; the message names the flag.
    """
    settings = load(options.run)
    check_device("--device", options.device)
    for name in ("goals", "size", "every", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name}: expected at least 1, got {value}")
    camera = _camera(settings.env, options.camera)
    tasks = chosen_tasks(settings.env, options.task)
    check_goals(settings, options.goals)
    step, checkpoint = choose_checkpoint(options.run, options.checkpoint)
    kind = _format(options)
    trainer = dataclasses.replace(
        settings.trainer, workers=options.workers or settings.trainer.workers, device=options.device
    )
    return Plan(
        settings=dataclasses.replace(settings, trainer=trainer),
        tasks=tasks,
        camera=camera,
        size=options.size or _tile_size(len(tasks)),
        format=kind,
        checkpoint=checkpoint,
        file=options.run / "videos" / f"{_file_name(step, tasks, settings.env)}.{kind}",
    )


def film(options: Options, chosen: Plan) -> "Clips":
    """Run the episodes and return what was seen of each, in the order of goals within tasks.

    Raises:
        UsageError: The checkpoint does not fit, or this machine cannot make pictures.
        NonFiniteError: An action, observation or reward is not finite.
        WorkerError: An environment failed.
    """
    import numpy as np

    from mtrl.assembly import load_policy, make_env
    from mtrl.envs.metaworld.opengl import check_import
    from mtrl.envs.workers import RenderingError
    from mtrl.evaluator import evaluate
    from mtrl.film import Clips, FilmedEnv, Look
    from mtrl.loggers import Progress

    clips: Clips = {}
    linger = None if options.whole else STEPS_PER_SECOND
    look = Look(camera=chosen.camera, size=chosen.size, every=options.every, linger=linger)

    def make_filmed(names: tuple[str, ...], copies: int) -> "VectorEnv":
        del copies  # one at a time: a renderer takes 150 MB
        env = make_env(chosen.settings, names, 1)
        return FilmedEnv(env, look, clips)

    try:
        check_import()
        policy = load_policy(chosen.settings, chosen.checkpoint, None)
    except RenderingError as problem:
        raise UsageError(str(problem)) from problem
    except (ValueError, FileNotFoundError) as problem:
        raise UsageError(f"cannot load {chosen.checkpoint}: {problem}") from problem
    names, goals = envs.task_names(chosen.settings.env), np.arange(options.goals)
    with closing(Progress(len(chosen.tasks) * len(goals))) as progress:
        try:
            evaluate(make_filmed, names, policy, goals, only=chosen.tasks, report=progress.add)
        except RenderingError as problem:
            raise UsageError(str(problem)) from problem
    return {(task, goal): clips[task, goal] for task in chosen.tasks for goal in goals.tolist()}


def write(options: Options, chosen: Plan, clips: "Clips") -> None:
    """Write the clips into the file, whole or not at all: all tasks at once, goal after goal.

    Raises:
        UsageError: It cannot be written.
    """
    from mtrl.run_directory import whole
    from mtrl.video import WRITERS, compose

    def frames(goal: int) -> "Iterator[Frame]":
        title = "" if options.goals == 1 else f" goal {goal}"
        return compose([clips[task, goal] for task in chosen.tasks], [f"{task}{title}" for task in chosen.tasks])

    try:
        chosen.file.parent.mkdir(exist_ok=True)
        with whole(chosen.file) as partial:
            everything = chain.from_iterable(frames(goal) for goal in range(options.goals))
            WRITERS[chosen.format](partial, everything, STEPS_PER_SECOND / options.every)
    except OSError as problem:
        raise UsageError(f"cannot write {chosen.file}: {problem.strerror or problem}") from problem


def _camera(env: str, camera: str | None) -> str:
    cameras = envs.cameras(env)
    if not cameras:
        raise UsageError(f"there is nothing to see in {env}: only Meta-World's tasks have cameras")
    if camera is None:
        return cameras[0]
    try:
        check_name(cameras, "camera", camera)
    except ValueError as problem:
        raise UsageError(f"--camera: {problem}") from problem
    return camera


def _tile_size(num_tasks: int) -> int:
    from mtrl.video import num_columns

    return max(SMALLEST_TILE, min(TILE, GRID // num_columns(num_tasks)))


def _format(options: Options) -> str:
    from mtrl.video import has_ffmpeg

    if options.format == "mp4" and not has_ffmpeg():
        raise UsageError("--format mp4: needs imageio-ffmpeg (pip install 'mtrl-aligned[video]'); gif needs nothing")
    return options.format or ("mp4" if has_ffmpeg() else "gif")


def _file_name(step: int, tasks: tuple[str, ...], env: str) -> str:
    if tasks == envs.task_names(env) and len(tasks) > 1:
        return f"{step:012d}"
    return f"{step:012d}-" + ("+".join(tasks) if len(tasks) <= MOST_NAMED else f"{len(tasks)}tasks")


if __name__ == "__main__":
    sys.exit(main())
