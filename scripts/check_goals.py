"""Are our goals those of Meta-World's own benchmarks?

Builds the stock benchmarks (minutes of physics) and compares every goal of every task, bit for bit:

    python scripts/check_goals.py --benchmarks MT10 MT50 --seeds 0 1
"""

import argparse
import pickle
import time

import metaworld
import numpy as np

from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.envs.metaworld.tasks import BENCHMARKS


def main() -> None:
    """Print one line per benchmark and seed; exit with 1 if any goal differs."""
    parser = argparse.ArgumentParser(description="Compare our goals with those of Meta-World's own benchmarks.")
    parser.add_argument("--benchmarks", nargs="+", default=["MT10", "MT25", "MT50"], help="MT10, MT25, MT50 or tasks")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    args = parser.parse_args()
    print(f"{'benchmark':<28} {'seed':>4} {'tasks':>5} {'equal':>5} {'stock s':>8} {'ours s':>8}")
    equal = [_compare(benchmark, seed) for benchmark in args.benchmarks for seed in args.seeds]
    raise SystemExit(0 if all(equal) else 1)


def _compare(benchmark: str, seed: int) -> bool:
    start = time.perf_counter()
    stock = _stock_goals(benchmark, seed)
    stock_seconds = time.perf_counter() - start
    start = time.perf_counter()
    suite = benchmark.lower() if benchmark.lower() in BENCHMARKS else "mt1"
    ours = goal_vectors(suite, stock, seed)
    our_seconds = time.perf_counter() - start
    num_equal = sum(np.array_equal(ours[name], goals) for name, goals in stock.items())
    print(f"{benchmark:<28} {seed:>4} {len(stock):>5} {num_equal:>5} {stock_seconds:>8.1f} {our_seconds:>8.3f}")
    return num_equal == len(stock)


def _stock_goals(benchmark: str, seed: int) -> dict[str, np.ndarray]:
    constructors = {"MT10": metaworld.MT10, "MT25": metaworld.MT25, "MT50": metaworld.MT50}
    stock = constructors[benchmark](seed=seed) if benchmark in constructors else metaworld.MT1(benchmark, seed=seed)
    goals: dict[str, list[np.ndarray]] = {}
    for task in stock.train_tasks:
        goals.setdefault(task.env_name, []).append(pickle.loads(task.data)["rand_vec"])
    return {name: np.stack(vectors) for name, vectors in goals.items()}


if __name__ == "__main__":
    main()
