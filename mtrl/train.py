"""Train one policy on many tasks: `python -m mtrl.train --env mt10 --aggregator aligned`.

Exit codes: 0 done, 2 usage, 3 a loss or gradient is not finite, 4 environments failed, 130 SIGINT, 143 SIGTERM.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mtrl.cli import error, parse

if TYPE_CHECKING:
    from mtrl.cli import Settings
    from mtrl.trainer import Trainer

EXIT_NONFINITE, EXIT_WORKERS = 3, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    # Read when torch loads: learner threads that wait asleep leave the cores to the environments' processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settings = parse(sys.argv[1:] if argv is None else argv)
    # Imported only after the command line was found right: torch takes seconds.
    from mtrl.envs.workers import WorkerError
    from mtrl.memory import keep_freed_memory
    from mtrl.signals import StopRequest
    from mtrl.trainer import NonFiniteError

    keep_freed_memory()
    stop = StopRequest()
    stop.install()
    trainer = None
    try:
        trainer = build(settings)
        trainer.run(stop)
    except NonFiniteError as failure:
        return _report(failure, EXIT_NONFINITE)
    except WorkerError as failure:
        return _report(failure, EXIT_WORKERS)
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
    from mtrl.loggers import say
    from mtrl.replay import Replay
    from mtrl.timing import Stopwatch
    from mtrl.trainer import Trainer

    config = settings.trainer
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    replay_device = device if settings.replay.device == "auto" else torch.device(settings.replay.device)
    stopwatch = Stopwatch()
    run_dir = None
    try:
        run_dir = run_directory.claim(settings)
        checkpoint = run_directory.checkpoint_to_resume(settings)
        steps_done = load(checkpoint, "trainer")["step_count"] if checkpoint else 0
        env = make_env(settings)
        for remark in settings.remarks:
            say(remark)
        cost.say_memory(settings, env.spec, device, replay_device)
        replay = Replay(env.spec, settings.replay.capacity, replay_device, config.seed)
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
            device=device,
            run_dir=run_dir,
            stopwatch=stopwatch,
            resume_from=checkpoint,
        )
    except ValueError as problem:
        if run_dir is not None:
            run_directory.drop_if_empty(run_dir)
        error(str(problem))


def _report(failure: Exception, exit_code: int) -> int:
    sys.stderr.write(f"\nerror: {failure}\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
