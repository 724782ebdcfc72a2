"""Short runs of the real trainer on two toy tasks, and what they leave behind."""

import functools
import json
import signal
from typing import Any

import numpy as np
import torch

from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import make
from mtrl.checkpoint import latest
from mtrl.envs.toy import make as make_toy
from mtrl.networks.mlp import MLP
from mtrl.networks.multi_head import MultiHead
from mtrl.replay import Replay
from mtrl.schedule import Config
from mtrl.signals import StopRequest
from mtrl.timing import Stopwatch
from mtrl.trainer import Trainer

CPU = torch.device("cpu")
TASKS = ("reach-east", "reach-west")
SMALL: dict[str, Any] = {
    "total_steps": 400,
    "warmup_steps": 50,
    "eval_every": 200,
    "eval_goals": 2,
    "log_every": 100,
    "checkpoint_every": 200,
    "envs_per_task": 2,
}


NETWORKS = {
    "mlp": functools.partial(MLP, MLP.Config(hidden_dims=(16,))),
    "multi_head": functools.partial(MultiHead, MultiHead.Config(hidden_dims=(16,))),
}


def build(run_dir, aggregator="aligned", network="mlp", resume_from=None, capacity=1000, **options):
    config = Config(**(SMALL | options))
    env = make_toy("toy", TASKS, seed=config.seed, goal_seed=0, envs_per_task=config.envs_per_task, workers=None)

    def make_eval_env(tasks, copies):
        return make_toy("toy", tasks, seed=config.seed, goal_seed=0, envs_per_task=copies, workers=None)

    stopwatch = Stopwatch()
    agent = MTSAC(
        MTSAC.Config(batch_size=8),
        spec=env.spec,
        make_network=NETWORKS[network],
        critic_aggregator=make(aggregator),
        actor_aggregator=make("mean" if make(aggregator).needs_positive_losses else aggregator),
        device=CPU,
        seed=config.seed,
        stopwatch=stopwatch,
    )
    run_dir.mkdir(exist_ok=True)
    return Trainer(
        config,
        env=env,
        make_eval_env=make_eval_env,
        agent=agent,
        replay=Replay(env.spec, capacity, CPU, config.seed),
        batch_size=8,
        gamma=agent.config.gamma,
        device=CPU,
        run_dir=run_dir,
        stopwatch=stopwatch,
        resume_from=resume_from,
    )


def train(run_dir, **options):
    trainer = build(run_dir, **options)
    trainer.run(StopRequest())
    trainer.close()
    return trainer


def train_in_parts(run_dir, stops, **options):
    """Train, stopped by a signal at each of the given environment steps and then continued."""
    for step in stops:
        trainer = build(run_dir, resume_from=latest(run_dir / "checkpoints"), **options)
        stop = StopRequest()
        stop_at(trainer, step, stop)
        trainer.run(stop)
        trainer.close()
        assert trainer.step_count == step
    return train(run_dir, resume_from=latest(run_dir / "checkpoints"), **options)


def stop_at(trainer, step_count, stop):
    """Let a signal come in the vector step that ends at `step_count`."""
    step = trainer._advance

    def step_and_stop():
        step()
        if trainer.step_count == step_count:
            stop._receive(signal.SIGINT, None)

    trainer._advance = step_and_stop


def records(run_dir, kind):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def assert_same_state(a, b):
    """Compare two trees of tensors, arrays and numbers bit by bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same_state(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same_state(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b)
    else:
        assert a == b
