"""Join concrete classes by the names in a run's settings: the one place that knows both names and classes."""

from functools import partial
from typing import TYPE_CHECKING

import torch

from mtrl import agents, aggregators, envs, networks
from mtrl.interfaces import Agent, EnvSpec, VectorEnv
from mtrl.registry import resolve
from mtrl.timing import Stopwatch

if TYPE_CHECKING:
    from mtrl.cli import Settings


def make_env(settings: "Settings", tasks: tuple[str, ...] | None = None, envs_per_task: int | None = None) -> VectorEnv:
    """Build the run's environments, or some of its tasks with the goals they have in the run.

    Args:
        settings: Of the run.
        tasks: Which of the run's tasks; all by default.
        envs_per_task: Copies of each task; as many as the run has by default.
    """
    config = settings.trainer
    suite, _ = envs.parse(settings.env)
    return envs.make(
        settings.env if tasks is None else f"{suite}:{','.join(tasks)}",
        seed=config.seed,
        goal_seed=config.goal_seed,
        envs_per_task=envs_per_task or config.envs_per_task,
        workers=config.workers,
    )


def make_agent(settings: "Settings", spec: EnvSpec, device: torch.device, stopwatch: Stopwatch | None = None) -> Agent:
    """Build the run's agent as it is before its first update.

    Raises:
        ValueError: An aggregator's options do not fit the number of tasks.
    """
    critic_aggregator = resolve(aggregators.REGISTRY, "aggregator", settings.critic_aggregator)
    actor_aggregator = resolve(aggregators.REGISTRY, "aggregator", settings.actor_aggregator)
    network = resolve(networks.REGISTRY, "network", settings.network)
    return resolve(agents.REGISTRY, "agent", settings.agent)(
        settings.agent_config,
        spec=spec,
        make_network=partial(network, settings.network_config),
        critic_aggregator=critic_aggregator(settings.critic_aggregator_config),
        actor_aggregator=actor_aggregator(settings.actor_aggregator_config),
        device=device,
        seed=settings.trainer.seed,
        stopwatch=stopwatch or Stopwatch(),
    )


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; auto is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
