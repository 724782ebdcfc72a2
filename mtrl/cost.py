"""What a run will cost on this machine, said before it starts."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from mtrl import configs, envs
from mtrl.interfaces import Agent, Batch, EnvSpec, VectorEnv
from mtrl.loggers import duration, say
from mtrl.precision import products_in
from mtrl.replay import storage_bytes
from mtrl.schedule import total_steps
from mtrl.seeding import numpy_generator, torch_generator

if TYPE_CHECKING:
    from mtrl.cli import Settings

_REPETITIONS = 3
_ENV_STEPS = 20
_SEED = 0  # of throw-away numbers

LONG_RUN_SECONDS = 12 * 3600
"""From here on a run without a GPU is told of the preset sized for that."""


def say_memory(settings: "Settings", spec: EnvSpec, device: torch.device, replay_device: torch.device) -> None:
    """Print the devices and the memory that the replay is about to take."""
    size = storage_bytes(spec, settings.replay.capacity) / 2**20
    say(
        f"{spec.num_tasks} tasks x {spec.envs_per_task} environments, learner on {device}, "
        f"replay of {settings.replay.capacity:,} transitions per task: {size:,.0f} MiB on {replay_device}"
    )


def say_time(
    settings: "Settings", make_agent: Callable[[], Agent], env: VectorEnv, device: torch.device, steps_done: int = 0
) -> None:
    """Measure an update and a step, and print what the run will still take; name the preset sized for a CPU.

    It will take less: environments step while the learner updates, and updates are recorded.

    Args:
        settings: Of the run.
        make_agent: Builds an agent to be thrown away.
        env: The run's environments; left in the middle of their episodes.
        device: Of the learner.
        steps_done: Environment steps that a run to be resumed has already taken.
    """
    spec = env.spec
    with products_in(settings.trainer.matmul_precision):
        update = seconds_per_update(make_agent, spec, settings.agent_config.batch_size, device)
    step = seconds_per_vector_step(env)
    budget, learning, evaluating = estimate(settings, spec, update, step, steps_done)
    say(
        f"one update takes {1000 * update:.1f} ms and one step of all environments {1000 * step:.1f} ms: "
        f"{budget:,} environment steps will take at most about {duration(learning)}, evaluations {duration(evaluating)}"
    )
    random_steps = settings.trainer.warmup_steps * spec.num_tasks
    if budget and steps_done + budget < random_steps:
        say(
            f"nothing will be learned: the first {random_steps:,} environment steps are random "
            f"(--warmup-steps {settings.trainer.warmup_steps} for each of {spec.num_tasks} tasks)"
        )
    if device.type == "cpu" and learning > LONG_RUN_SECONDS:
        sized = f"{envs.parse(settings.env)[0]}_cpu"
        advice = f"--preset {sized} is" if sized in configs.names() else "the sizes of --preset mt10_cpu are"
        say(f"this machine has no GPU; {advice} made for that")


def estimate(
    settings: "Settings", spec: EnvSpec, update: float, step: float, steps_done: int = 0
) -> tuple[int, float, float]:
    """Work out what a run will still take.

    Args:
        settings: Of the run.
        spec: Of its environments.
        update: Seconds of one update.
        step: Seconds of one step of all environments.
        steps_done: Environment steps already taken.

    Returns:
        Environment steps, seconds for them and their updates, seconds of the evaluations.
    """
    config = settings.trainer
    budget = max(0, total_steps(config, spec) - steps_done)
    random_steps = max(0, config.warmup_steps * spec.num_tasks - steps_done)
    vector_steps = budget / (spec.num_tasks * config.envs_per_task)
    learning_steps = max(0, budget - random_steps) / (spec.num_tasks * config.envs_per_task)
    learning = vector_steps * step + learning_steps * config.updates_per_step * update
    evaluations = math.ceil(budget / config.eval_every) if config.eval_every else 0
    evaluating = evaluations * config.eval_goals * spec.max_episode_steps * step / config.envs_per_task
    return budget, learning, evaluating


def seconds_per_update(make_agent: Callable[[], Agent], spec: EnvSpec, batch_size: int, device: torch.device) -> float:
    """Time one update of a throw-away agent on a random batch; the median of a few, after one to warm up."""
    agent = make_agent()
    batch = _random_batch(spec, batch_size, device)
    times = []
    for _ in range(_REPETITIONS + 1):
        start = time.perf_counter()
        metrics = agent.update(batch)
        for value in metrics.values():
            value.cpu()  # waits for the device
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[_REPETITIONS // 2]


def seconds_per_vector_step(env: VectorEnv) -> float:
    """Time one random step of every environment in `env`, which is left in the middle of its episodes.

    Not put back: an environment that its seed does not determine cannot be.
    """
    spec = env.spec
    env.reset()
    shape = (spec.num_tasks, spec.envs_per_task, spec.action_dim)
    generator = numpy_generator(_SEED, "cost")
    start = time.perf_counter()
    for _ in range(_ENV_STEPS):
        env.step(generator.uniform(-1, 1, shape).astype(np.float32))
    return (time.perf_counter() - start) / _ENV_STEPS


def _random_batch(spec: EnvSpec, batch_size: int, device: torch.device) -> Batch:
    generator = torch_generator(_SEED, "cost", device=device)
    shape = (spec.num_tasks, batch_size)

    def draw(*features: int) -> torch.Tensor:
        return torch.randn(*shape, *features, generator=generator, device=device)

    task = torch.arange(spec.num_tasks, device=device)[:, None].expand(shape)
    zeros = torch.zeros(shape, device=device)
    return Batch(draw(spec.obs_dim), draw(spec.action_dim).tanh(), draw(), draw(spec.obs_dim), zeros, task)
