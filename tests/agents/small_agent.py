"""A small multi-task SAC agent, batches for it, and its state leaf by leaf."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import make
from mtrl.aggregators.base import Aggregator
from mtrl.interfaces import Batch, EnvSpec
from mtrl.networks import REGISTRY
from mtrl.registry import resolve
from tests.aggregators.traits import sees_gradients_of_parameters

NUM_TASKS, OBS_DIM, ACTION_DIM, BATCH = 3, 5, 2, 8
CPU = torch.device("cpu")
every_network = pytest.mark.parametrize("network_name", list(REGISTRY))
# Those that look at a representation, which only some networks name, are in tests/aggregators/test_aligned_ub.py.
every_method = pytest.mark.parametrize("method", sees_gradients_of_parameters())


def build(
    network_name: str = "mlp",
    method: str | Aggregator = "mean",
    *,
    num_tasks=NUM_TASKS,
    seed=0,
    hidden_dims=(12, 10),
    **config,
) -> MTSAC:
    spec = EnvSpec(
        task_names=tuple(f"task-{index}" for index in range(num_tasks)),
        envs_per_task=2,
        obs_dim=OBS_DIM,
        action_dim=ACTION_DIM,
        max_episode_steps=50,
        num_goals=1,
    )
    network = resolve(REGISTRY, "network", network_name)
    critic_aggregator, actor_aggregator = (
        make(method) if isinstance(method, str) else copy.deepcopy(method) for _ in range(2)
    )
    return MTSAC(
        MTSAC.Config(**config),
        spec=spec,
        make_network=lambda **sizes: network(network.Config(hidden_dims=hidden_dims), **sizes),
        critic_aggregator=critic_aggregator,
        actor_aggregator=actor_aggregator,
        device=CPU,
        seed=seed,
    )


def batch_for(seed: int = 0, num_tasks: int = NUM_TASKS) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(num_tasks, BATCH, *shape, generator=generator)

    return Batch(
        obs=normal(OBS_DIM),
        action=normal(ACTION_DIM).tanh(),
        reward=normal(),
        next_obs=normal(OBS_DIM),
        terminated=(normal() > 1).float(),
        task=torch.arange(num_tasks)[:, None].expand(num_tasks, BATCH),
    )


def flatten(state: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of a state dict by path."""
    if isinstance(state, dict):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    else:
        return {path: state.clone() if isinstance(state, Tensor) else state}
    return {key: value for name, part in items for key, value in flatten(part, f"{path}/{name}").items()}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Return the paths whose value is not bit for bit the same."""
    assert before.keys() == after.keys()

    def same(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, Tensor) else a == b

    return {path for path in before if not same(before[path], after[path])}


def snapshot(agent: MTSAC) -> dict[str, Any]:
    return flatten(agent.state_dict())


def parameters(agent: MTSAC) -> dict[str, Tensor]:
    """Return copies of everything that is learned, by path, optimisers apart."""
    learned = ("/shared/", "/private/", "/log_alpha")
    return {path: leaf for path, leaf in snapshot(agent).items() if any(part in path for part in learned)}


def moments(agent: MTSAC) -> list[Tensor]:
    """Return counts and moments of all optimisers."""
    return [
        state for adam in (agent.actor.adam, agent.critic.adam, agent.temperature_adam) for state in adam.state.values()
    ]
