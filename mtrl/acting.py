"""Exploring actions for what the environments show: to the device, through the policy, and back."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from mtrl.interfaces import Agent, EnvSpec
from mtrl.memory import to_device
from mtrl.recording import Repeated


class Explorer:
    """Calls an agent's exploring policy for all environments at once."""

    def __init__(
        self, agent: Agent, spec: EnvSpec, device: torch.device, *, is_recorded: bool, warn: Callable[[str], None]
    ) -> None:
        """Prepare the place for observations on the device, where the policy reads them."""
        self._obs = torch.zeros(spec.num_tasks, spec.envs_per_task, spec.obs_dim, device=device)
        self._act = Repeated(
            "the policy",
            lambda: agent.act(self._obs),
            tensors=list,
            streams=lambda: [agent.act_stream()],
            device=device,
            is_recorded=is_recorded,
            warn=warn,
        )

    def __call__(self, obs: Float[np.ndarray, "task env obs"]) -> Float[np.ndarray, "task env action"]:
        """Return the actions; waits for the device."""
        self._obs.copy_(to_device(obs, self._obs.device))
        return self._act().cpu().numpy()
