"""Vector environments of fakes, and whether processes have ended."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtrl.envs.worker_process import SingleEnv
from mtrl.envs.workers import WorkerVectorEnv
from mtrl.interfaces import EnvSpec
from tests.envs.fakes import EPISODE_STEPS, NUM_GOALS, counting

TASK_NAMES = ("north", "east", "south")


def make_spec(task_names: tuple[str, ...] = TASK_NAMES, envs_per_task: int = 2) -> EnvSpec:
    return EnvSpec(
        task_names=task_names,
        envs_per_task=envs_per_task,
        obs_dim=4,
        action_dim=1,
        max_episode_steps=EPISODE_STEPS,
        num_goals=NUM_GOALS,
    )


@contextmanager
def vector_env(make_env: Callable[[int, int], SingleEnv] = counting, **options: Any) -> Iterator[WorkerVectorEnv]:
    spec = options.pop("spec", None) or make_spec()
    with WorkerVectorEnv(spec, make_env, **{"seed": 0, "workers": 1} | options) as env:
        yield env


def wait_until_gone(process_ids: tuple[int, ...], seconds: float = 10.0) -> bool:
    """Tell whether all processes end in time; one that waits to be collected by init has ended."""
    deadline = time.monotonic() + seconds
    while any(_is_running(pid) for pid in process_ids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False
