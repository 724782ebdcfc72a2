"""Step EnvPool's Meta-World for `bench_envs.py`; needs NumPy and EnvPool, and nothing of mtrl.

    python scripts/env_envpool.py TASK...

says which version it is, then takes as many vector steps as each line of standard input says, and writes their times
as a line of JSON. One pool of one environment per task, because a pool holds a single task; all pools are sent their
actions before any is waited for, so that their threads work side by side where there are cores.
"""

import json
import sys
import time
from typing import Any

import numpy as np


def main() -> None:
    """Serve until the standard input ends."""
    try:
        import envpool  # pyright: ignore[reportMissingImports] - lives in another environment
    except ModuleNotFoundError:
        print(json.dumps({"version": None}), flush=True)
        return
    pools = [
        envpool.make_gymnasium(public_name(task), num_envs=1, num_threads=1, seed=0, partially_observable=False)
        for task in sys.argv[1:]
    ]
    for pool in pools:
        pool.reset()
    generator = np.random.default_rng(0)
    print(json.dumps({"version": envpool.__version__}), flush=True)
    for line in sys.stdin:
        actions = generator.uniform(-1, 1, (int(line), len(pools), 1, 4)).astype(np.float32)
        cpu = time.process_time()
        wall = [step(pools, action) for action in actions]
        print(json.dumps({"wall": wall, "cpu": time.process_time() - cpu}), flush=True)


def public_name(task: str) -> str:
    """Return EnvPool's name of a task: MetaWorld/PickPlace-v3 for pick-place-v3."""
    *words, version = task.split("-")
    return f"MetaWorld/{''.join(map(str.capitalize, words))}-{version}"


def step(pools: list[Any], actions: np.ndarray) -> float:
    """Take one step everywhere and return its seconds."""
    start = time.perf_counter()
    for pool, action in zip(pools, actions, strict=True):
        pool.send(action)
    for pool in pools:
        pool.recv()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
