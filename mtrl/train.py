"""Train one policy on many tasks: `python -m mtrl.train --env mt10 --aggregator aligned`.

Exit codes: 0 done, or saved after --max-hours; 2 usage, 3 a number is not finite, 4 environments failed, 5 the run
cannot be saved; 129, 130, 138, 143 saved after SIGHUP, SIGINT, SIGUSR1, SIGTERM.
"""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.cli import error, parse

if TYPE_CHECKING:
    from mtrl.cli import Settings
    from mtrl.interfaces import EnvSpec
    from mtrl.trainer import Trainer

EXIT_NONFINITE, EXIT_WORKERS, EXIT_STORAGE = 3, 4, 5

PATIENCE_SECONDS = 5.0
"""After which a person wants to know what takes so long."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    # Read when torch loads: learner threads that wait asleep leave the cores to the environments' processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settings = parse(sys.argv[1:] if argv is None else argv)
    # Imported only after the command line was found right: torch takes seconds.
    from mtrl.envs.workers import WorkerError
    from mtrl.files import StorageError
    from mtrl.loggers import show_warnings
    from mtrl.memory import keep_freed_memory
    from mtrl.nonfinite import NonFiniteError
    from mtrl.signals import StopRequest

    show_warnings()
    keep_freed_memory()
    stop = StopRequest(settings.trainer.max_hours)
    stop.install()
    trainer = None
    try:
        trainer = build(settings)
        trainer.run(stop)
    except (NonFiniteError, WorkerError, StorageError) as failure:
        _report(failure, trainer.run_dir if trainer else None)
        codes = {NonFiniteError: EXIT_NONFINITE, WorkerError: EXIT_WORKERS, StorageError: EXIT_STORAGE}
        return next(code for kind, code in codes.items() if isinstance(failure, kind))
    finally:
        if trainer is not None:
            trainer.close()
    return stop.exit_code


def build(settings: "Settings") -> "Trainer":
    """Join the parts of the run, saying what is being set up and what it will cost."""
    import torch

    from mtrl import cost, run_directory
    from mtrl.assembly import choose_device, make_agent, make_env
    from mtrl.checkpoint import load
    from mtrl.envs.workers import WorkerError
    from mtrl.files import StorageError, told
    from mtrl.loggers import say
    from mtrl.precision import round_nothing
    from mtrl.replay import make_replay
    from mtrl.schedule import total_steps
    from mtrl.seeding import make_deterministic
    from mtrl.timing import Stopwatch
    from mtrl.trainer import Trainer

    config = settings.trainer
    round_nothing()
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        make_deterministic()
    device = choose_device(config.device)
    replay_device = device if settings.replay.device == "auto" else torch.device(settings.replay.device)
    stopwatch = Stopwatch()
    run_dir = None
    try:
        run_directory.require_checkpoint(settings)
        run_dir = run_directory.claim(settings)
        settings = run_directory.looked_at_again(settings, run_dir)
        checkpoint = run_directory.checkpoint_to_resume(settings)
        steps_done = load(checkpoint, "trainer")["step_count"] if checkpoint else 0
        with _patience("building the environments; the first time on a machine this can take a minute"):
            env = make_env(settings)
        _check_budget(total_steps(config, env.spec), steps_done, env.spec)
        for remark in settings.remarks:
            say(remark)
        cost.say_memory(settings, env.spec, device, replay_device)
        replay = make_replay(settings.replay, env.spec, replay_device, config.seed)
        cost.say_time(settings, lambda: make_agent(settings, env.spec, device), env, device, steps_done)
        agent = make_agent(settings, env.spec, device, stopwatch)
        run_directory.record(settings, run_dir)
        say(f"run directory {run_dir}; watch it with: tensorboard --logdir {run_dir}")
        return Trainer(
            config,
            env=env,
            make_eval_env=partial(make_env, settings),
            agent=agent,
            replay=replay,
            batch_size=settings.agent_config.batch_size,
            gamma=settings.agent_config.gamma,
            device=device,
            run_dir=run_dir,
            stopwatch=stopwatch,
            resume_from=checkpoint,
        )
    except (ValueError, WorkerError) as problem:
        if run_dir is not None:
            run_directory.drop_if_empty(run_dir)
        if isinstance(problem, WorkerError):
            raise
        error(str(problem))
    except OSError as problem:
        raise StorageError(f"the run cannot be set up: {told(problem)}") from problem


def _check_budget(budget: int, steps_done: int, spec: "EnvSpec") -> None:
    """Raise where a run is further than it shall get; its last vector step may have led over its end."""
    if steps_done >= budget + spec.num_tasks * spec.envs_per_task:
        raise ValueError(f"--total-steps {budget:,}: the run is at step {steps_done:,} already; expected more")


@contextmanager
def _patience(remark: str) -> Iterator[None]:
    """Say what takes so long, if the body does."""
    from mtrl.loggers import say

    timer = threading.Timer(PATIENCE_SECONDS, say, [remark])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _report(failure: Exception, run_dir: Path | None) -> None:
    """Say what ended the run and when, in one sentence; then its details, and how to go on."""
    from mtrl.checkpoint import by_step

    headline, _, details = str(failure).partition("\n")
    skip = " --on-nonfinite skip" * ("(--on-nonfinite skip leaves" in headline)
    sentence = ", ".join([headline, " ".join(getattr(failure, "__notes__", ()))]).removesuffix(", ")
    paragraphs = [f"error: {sentence}", details.strip()]
    if run_dir is None:
        paragraphs.append("the run has not begun: give the same command again when this is mended")
    elif checkpoints := by_step(run_dir / "checkpoints"):
        paragraphs.append(
            f"the last checkpoint is of step {max(checkpoints):,}; continue from it with --resume {run_dir}{skip}"
        )
    else:
        paragraphs.append("there is no checkpoint to continue from yet; start the run again")
    sys.stderr.write("\n" + "\n\n".join(filter(None, paragraphs)) + "\n")


if __name__ == "__main__":
    sys.exit(main())
