"""Join concrete classes by the names in a run's settings: the one place that knows both names and classes."""

import dataclasses
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from mtrl import agents, aggregators, checkpoint, envs, networks
from mtrl.evaluator import Policy
from mtrl.interfaces import Agent, EnvSpec, VectorEnv
from mtrl.precision import round_nothing
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
    return envs.make(
        settings.env,
        only=tasks,
        seed=config.seed,
        goal_seed=config.goal_seed,
        envs_per_task=envs_per_task or config.envs_per_task,
        workers=config.workers,
        engine=settings.env_config.engine,
        max_episode_steps=settings.env_config.max_episode_steps,
        num_goals=settings.env_config.num_goals,
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


def read_spec(settings: "Settings") -> EnvSpec:
    """Return names and sizes of the run's environments, of which a single one is built for it."""
    names = envs.task_names(settings.env)
    with closing(make_env(settings, names[:1], 1)) as env:
        return dataclasses.replace(env.spec, task_names=names)


def load_agent(settings: "Settings", folder: Path) -> Agent:
    """Return the agent as a checkpoint of the run holds it, on the settings' device.

    Raises:
        ValueError: The checkpoint does not fit the settings.
        FileNotFoundError: It is gone: training deletes old ones.
    """
    round_nothing()
    device = choose_device(settings.trainer.device)
    agent = make_agent(settings, read_spec(settings), device)
    agent.load_state_dict(checkpoint.load(folder, "agent", device))
    return agent


def load_policy(settings: "Settings", folder: Path, action_seed: int | None) -> Policy:
    """Return what a checkpoint of the run has learned, as a policy of all its tasks.

    Args:
        settings: Of the run; the networks run on its device.
        folder: The checkpoint.
        action_seed: Of sampled actions; None for the deterministic policy.

    Raises:
        ValueError: The checkpoint does not fit the settings.
        FileNotFoundError: It is gone: training deletes old ones.
    """
    device = choose_device(settings.trainer.device)
    agent = load_agent(settings, folder)
    act = agent.act_deterministic
    if action_seed is not None:
        agent.seed_actions(action_seed)
        act = agent.act

    def policy(obs: Float[np.ndarray, "task env obs"]) -> Float[np.ndarray, "task env action"]:
        return act(torch.from_numpy(obs).to(device)).cpu().numpy()

    return policy


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; auto is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
