"""What does a Meta-World step cost, beside MuJoCo's own calls and beside the stock classes?

Per task, CPU time of one core in one process, over the same random actions:
    physics   the five substeps and the closing forward pass, called on the stock environment
    native    a step of the native engine
    stock     a step of Meta-World's own class
    reset     a reset of the native engine to a goal that was simulated before
The variants take turns within each task; the table shows means per step, without episode ends.

    python scripts/bench_envs.py --env mt10 --steps 400
"""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

import argparse
import gc
import time
import warnings
from collections.abc import Callable

import mujoco
import numpy as np

from mtrl.envs import parse, task_names
from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.envs.metaworld.native import FRAME_SKIP, NativeSawyerEnv
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.run_directory import describe_environment

TURNS = 4
RESETS = 50


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="mt10", help="a Meta-World benchmark, or some of its tasks")
    parser.add_argument("--steps", type=int, default=400, help="of each variant, in four turns (default: %(default)s)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # Meta-World's, about spaces
    gc.disable()  # one collection of all that was imported would show as a slow task
    about = describe_environment()
    print(f"{about['cpu']}, one process, commit {about['commit']}, {about['time']}; us of CPU time")
    print("| task | physics | native | stock | reset | physics / native | stock / native |")
    print("|---|---|---|---|---|---|---|")
    tasks = task_names(args.env)
    goals = goal_vectors(parse(args.env)[0], tasks, 0)
    rows = np.array([measure(task, goals[task], args.steps) for task in tasks])
    for name, row in [*zip(tasks, rows, strict=True), ("**mean**", rows.mean(0))]:
        physics, native, stock, reset = 1e6 * row
        cells = f"{physics:.0f} | {native:.0f} | {stock:.0f} | {reset:.0f}"
        print(f"| {name} | {cells} | {physics / native:.2f} | {stock / native:.2f} |")


def measure(task: str, goals: np.ndarray, num_steps: int) -> list[float]:
    """Return seconds per step of physics, native and stock, and per native reset."""
    native, stock = NativeSawyerEnv(task, goals), SawyerEnv(task, goals)
    env = stock.env

    def physics(action: np.ndarray) -> float:
        env.set_xyz_action(action[:3])
        env.data.ctrl[:] = action[-1], -action[-1]
        return seconds(
            lambda: (mujoco.mj_step(env.model, env.data, nstep=FRAME_SKIP), mujoco.mj_forward(env.model, env.data))
        )

    totals = np.zeros(4)
    actions = np.random.default_rng(0).uniform(-1, 1, (num_steps, 4)).astype(np.float32)
    for turn in np.array_split(actions, TURNS):
        stock.reset(0)
        totals[0] += sum(physics(action) for action in turn)
        native.reset(0)
        totals[1] += seconds(lambda turn=turn: [native.step(action) for action in turn])
        stock.reset(0)
        totals[2] += seconds(lambda turn=turn: [stock.step(action) for action in turn])
    totals[:3] /= num_steps
    totals[3] = seconds(lambda: [native.reset(0) for _ in range(RESETS)]) / RESETS
    return totals.tolist()


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
