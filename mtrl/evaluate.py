"""Evaluate a trained run, every goal of every task once: `python -m mtrl.evaluate RUN`.

Exit codes: 0 done, 2 usage, 3 a number is not finite, 4 environments failed, 130 SIGINT.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from mtrl import arguments
from mtrl.cli import UsageError
from mtrl.evaluate_options import Options, plan
from mtrl.failures import report_failures


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in training: leaves the cores to the environments
    options = arguments.read(Options, argv, "python -m mtrl.evaluate")
    return report_failures(lambda: _main(options))


def _main(options: Options) -> None:
    from mtrl.loggers import say
    from mtrl.results import table

    record, file = evaluate_run(options)
    say("\n".join([*table(record), f"written to {file}"]))


def evaluate_run(options: Options) -> tuple[dict[str, Any], Path]:
    """Evaluate a run and write what was found; return the record and its file.

    Raises:
        UsageError: The options fit neither each other nor the run, or the file cannot be written.
        NonFiniteError: An action, observation or reward is not finite.
        WorkerError: An environment failed.
    """
    import numpy as np

    from mtrl import envs
    from mtrl.assembly import load_policy, make_env
    from mtrl.evaluator import evaluate
    from mtrl.loggers import Progress
    from mtrl.results import make_record, to_json
    from mtrl.run_directory import write_whole

    chosen = plan(options)
    settings, scope = chosen.settings, chosen.scope
    try:
        policy = load_policy(settings, chosen.checkpoint, scope.seed)
    except (ValueError, FileNotFoundError) as problem:
        raise UsageError(f"cannot load {chosen.checkpoint}: {problem}") from problem
    goals = np.repeat(np.arange(scope.num_goals), scope.episodes)
    names = envs.task_names(settings.env)
    with closing(Progress(len(scope.tasks) * len(goals))) as progress:
        found = evaluate(partial(make_env, settings), names, policy, goals, only=scope.tasks, report=progress.add)
    about = {"run": options.run.resolve().name, "step": chosen.step, "env": settings.env}
    record = make_record(scope, found, about | {"goal_seed": settings.trainer.goal_seed})
    try:
        chosen.file.parent.mkdir(exist_ok=True)
        write_whole(chosen.file, to_json(record))
    except OSError as problem:
        raise UsageError(f"cannot write {chosen.file}: {problem.strerror}; name another file with --json") from problem
    return record, chosen.file


if __name__ == "__main__":
    sys.exit(main())
