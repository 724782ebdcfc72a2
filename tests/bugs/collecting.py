"""What the real trainer, with real workers, replay and agent, leaves in the replay."""

import functools
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import make
from mtrl.interfaces import Batch, VectorEnv
from mtrl.networks.mlp import MLP
from mtrl.replay import Replay
from mtrl.schedule import Config
from mtrl.signals import StopRequest
from mtrl.timing import Stopwatch
from mtrl.trainer import Trainer

CPU = torch.device("cpu")


class Bug(NamedTuple):
    """A bug, the fact it breaks, and a pattern of how the fact's check says so: not just any assertion will do."""

    put_back: Callable[..., None]
    fact: Callable[[], None]
    symptom: str


def collect(env: VectorEnv, *, vector_steps: int, capacity: int = 1000, random_steps: int | None = None) -> Trainer:
    """Train for so many steps of all environments, of which the first are random: all of them by default."""
    spec, stopwatch = env.spec, Stopwatch()
    steps_per_vector_step = spec.num_tasks * spec.envs_per_task
    config = Config(
        total_steps=vector_steps * steps_per_vector_step,
        warmup_steps=(random_steps or vector_steps + 1) * spec.envs_per_task,
        envs_per_task=spec.envs_per_task,
        eval_every=0,
        checkpoint_every=0,
    )
    agent = MTSAC(
        MTSAC.Config(batch_size=8),
        spec=spec,
        make_network=functools.partial(MLP, MLP.Config(hidden_dims=(16,))),
        critic_aggregator=make("aligned"),
        actor_aggregator=make("aligned"),
        device=CPU,
        seed=0,
        stopwatch=stopwatch,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            config,
            env=env,
            make_eval_env=lambda tasks, copies: env,
            agent=agent,
            replay=Replay(spec, capacity, CPU, config.seed),
            batch_size=8,
            gamma=agent.config.gamma,
            device=CPU,
            run_dir=Path(folder),
            stopwatch=stopwatch,
        )
        with closing(trainer):
            trainer.run(StopRequest())
    return trainer


class Row(NamedTuple):
    """One stored transition, and the task under which it is stored."""

    task: int
    obs: Tensor
    action: Tensor
    reward: float
    next_obs: Tensor
    is_terminated: bool


def stored_rows(replay: Replay) -> list[Row]:
    """Return every distinct row that sampling brings up, by task."""
    # The chance that one of n rows is missing from 40 n draws is below n e^-40.
    batch = replay.sample(40 * int(replay.size.max()))
    width = batch.obs.shape[-1]
    rows = []
    for task in range(len(batch.task)):
        assert (batch.task[task] == task).all(), "a batch's task is not that of its axis"
        rows += [
            Row(task, row[:width], row[2 * width : -2], float(row[-2]), row[width : 2 * width], bool(row[-1]))
            for row in torch.unique(_packed(batch, task), dim=0)
        ]
    return rows


def _packed(batch: Batch, task: int) -> Tensor:
    columns = (batch.obs, batch.next_obs, batch.action, batch.reward[..., None], batch.terminated[..., None])
    return torch.cat([column[task] for column in columns], dim=-1)
