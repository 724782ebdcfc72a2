"""How fast this machine trains MT10: steps of the environments, updates, and what that makes of a run."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

import torch

from mtrl import cli, cost, envs
from mtrl.assembly import choose_device, make_agent
from mtrl.interfaces import EnvSpec
from mtrl.machine import usable_cores

METHODS = ("mean", "aligned")

PRESETS = {"cuda": "mt10", "cpu": "mt10_cpu"}
"""By device."""

GAIN = 1.05
"""What more workers or threads have to be faster by, to be recommended."""

_SECONDS = 0.7
"""Of stepping, for each number of workers."""


class Speeds(NamedTuple):
    """Measured on MT10."""

    start_seconds: float
    """Until the first observation, with the first number of workers: of what is compiled where the cache is cold."""
    steps: dict[int, float]
    """Environment steps per second by number of workers."""
    updates: dict[str, dict[int, float]]
    """Seconds per update by method and number of threads; networks and batch as published."""


class Recommendation(NamedTuple):
    """How to train MT10 here."""

    preset: str
    workers: int
    threads: int
    seconds: float
    """What that takes, evaluations included."""

    @property
    def command(self) -> str:
        """Return the command line."""
        return (
            f"python -m mtrl.train --env mt10 --preset {self.preset} --aggregator aligned "
            f"--workers {self.workers} --threads {self.threads}"
        )


def measure() -> tuple[Speeds, EnvSpec]:
    """Step and update for about three seconds, apart from what starting takes.

    Raises:
        WorkerError: The environments fail.
    """
    counts = sorted({1, usable_cores()})
    start_seconds, steps, spec = 0.0, {}, None
    for workers in counts:
        start = time.perf_counter()
        with closing(envs.make("mt10", workers=workers)) as env:
            env.reset()
            start_seconds = start_seconds or time.perf_counter() - start
            spec = env.spec
            times, end = [], time.perf_counter() + _SECONDS
            while not times or time.perf_counter() < end:
                times.append(cost.seconds_per_vector_step(env))
            steps[workers] = spec.num_tasks / statistics.median(times)
    assert spec is not None
    updates = {method: _update_seconds(["--aggregator", method], spec, counts) for method in METHODS}
    return Speeds(start_seconds, steps, updates), spec


def recommend(speeds: Speeds, spec: EnvSpec) -> Recommendation:
    """Choose preset, workers and threads, and measure what the preset's own updates take."""
    preset = PRESETS[choose_device("auto").type]
    workers = _least({count: 1 / rate for count, rate in speeds.steps.items()})
    argv = ["--preset", preset, "--aggregator", "aligned"]
    updates = _update_seconds(argv, spec, list(speeds.steps))
    threads = _least(updates)
    settings = cli.parse(argv)
    step = settings.trainer.envs_per_task * spec.num_tasks / speeds.steps[workers]
    _, learning, evaluating = cost.estimate(settings, spec, updates[threads], step)
    return Recommendation(preset, workers, threads, learning + evaluating)


def _update_seconds(argv: Sequence[str], spec: EnvSpec, thread_counts: Sequence[int]) -> dict[int, float]:
    settings, device = cli.parse(["--env", "mt10", *argv]), choose_device("auto")
    found = {}
    for count in thread_counts:
        with _threads(count):
            batch_size = settings.agent_config.batch_size
            found[count] = cost.seconds_per_update(lambda: make_agent(settings, spec, device), spec, batch_size, device)
    return found


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _least(seconds: dict[int, float]) -> int:
    """Return the smallest count that is about as fast as the fastest."""
    fastest = min(seconds.values())
    return min(count for count, value in seconds.items() if value <= fastest * GAIN)
