"""Does a trained policy do in Meta-World's stock environments what our evaluator says?

Runs the policy of a run's newest checkpoint, every goal of every task once, in the three ways that
scripts/compare_with_stock.py explains, and prints its table:

    python -m scripts.compare_run_with_stock RUN --output results/stock_agreement_trained.md
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import metaworld
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from mtrl import envs
from mtrl.assembly import load_policy
from mtrl.checkpoint import by_step
from mtrl.cli import load
from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.evaluator import Policy
from mtrl.run_directory import describe_environment
from scripts.compare_with_stock import (
    Episodes,
    Numbers,
    equal_episodes,
    run_ours,
    run_stock_evaluation,
    run_stock_to_the_end,
    table,
)


def main() -> None:
    """Print or write one table; exit with 1 if any episode differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="of at most ten Meta-World tasks")
    parser.add_argument("--goals", type=int, default=50, help="the first goals of each task")
    parser.add_argument("--output", type=Path, help="Markdown file; standard output by default")
    args = parser.parse_args()
    found = compare_run(args.run, args.goals)
    about: dict[str, Any] = describe_environment()
    about["command"] = ["-m", "scripts.compare_run_with_stock", *sys.argv[1:]]
    subject = f"The policy of {args.run.name}, step {max(by_step(args.run / 'checkpoints')):,}"
    text = "\n".join(table(found, f"{subject}, on {len(found)} tasks x {args.goals} goals", about)) + "\n"
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text)
    raise SystemExit(0 if all(len(equal_episodes(numbers)) == args.goals for numbers in found.values()) else 1)


def compare_run(run: Path, num_goals: int) -> dict[str, dict[str, Numbers]]:
    """Evaluate the newest checkpoint of the run in the three ways; one result per task."""
    settings = load(run)
    checkpoints = by_step(run / "checkpoints")
    policy = env_by_env(load_policy(settings, checkpoints[max(checkpoints)], None))
    suite, _ = envs.parse(settings.env)
    names, goal_seed = envs.task_names(settings.env), settings.trainer.goal_seed
    goals = goal_vectors(suite, names, goal_seed)
    stock = [partial(stock_env, name, num_goals, goals[name]) for name in names]
    ways = {
        "ours": run_ours(settings.env, names, policy, num_goals, goal_seed),
        "evaluation": run_stock_evaluation(stock, policy, num_goals),
        "to the end": run_stock_to_the_end(stock, policy, num_goals),
    }
    return {name: {way: numbers[index] for way, numbers in ways.items()} for index, name in enumerate(names)}


def env_by_env(policy: Policy) -> Policy:
    """Let the policy see one environment of each task at a time: the last bit of a product depends on its shape."""

    def act(obs: np.ndarray) -> np.ndarray:
        return np.concatenate([policy(obs[:, env : env + 1]) for env in range(obs.shape[1])], axis=1)

    return act


def stock_env(task: str, num_goals: int, goals: np.ndarray) -> Episodes:
    """Build the stock environment of the task with given goals, (goal, 3), as a stock benchmark would."""
    env_class = ALL_V3_ENVIRONMENTS[task]
    data = [{"rand_vec": goal, "env_cls": env_class, "partially_observable": False} for goal in goals]
    tasks = [metaworld._encode_task(task, one) for one in data]  # noqa: SLF001 - as its benchmarks do
    env = metaworld._init_each_env(env_class, tasks, task_select="pseudorandom")  # noqa: SLF001 - as make_mt_envs does
    return Episodes(env, num_goals)


if __name__ == "__main__":
    main()
