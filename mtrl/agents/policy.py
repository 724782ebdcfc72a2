"""What an agent has learned, as one torch module that needs no agent: observations and tasks in, actions out."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import vmap

from mtrl.agents.losses import split_policy
from mtrl.agents.mtsac import MTSAC
from mtrl.interfaces import Network, Parameters


class Policy(nn.Module):
    """The deterministic policy of all tasks, one task per row: what `Agent.act_deterministic` returns."""

    def __init__(
        self,
        network: Network,
        shared: Parameters,
        private: Parameters,
        mean: Float[Tensor, " obs"],
        std: Float[Tensor, " obs"],
    ) -> None:
        """Take the actor's parameters and what observations are standardised by."""
        super().__init__()
        self._network = network
        self._tensors = {"standardizer.mean": mean, "standardizer.std": std}
        self._tensors |= {f"shared.{name}": leaf for name, leaf in shared.items()}
        self._tensors |= {f"private.{name}": leaf for name, leaf in private.items()}
        for name, tensor in self._tensors.items():
            self.register_buffer(name.replace(".", "_"), tensor)  # torch allows no dots

    @property
    def tensors(self) -> Parameters:
        """All tensors by name: standardizer.mean, shared.hidden.0.weight, private.output.weight, ..."""
        return self._tensors

    def forward(self, obs: Float[Tensor, "batch obs"], task: Int[Tensor, " batch"]) -> Float[Tensor, "batch action"]:
        """Return each row's action for the task of that index."""
        shared, private = self._group("shared."), self._group("private.")
        inputs = (obs - self.get_buffer("standardizer_mean")) / self.get_buffer("standardizer_std")
        if private:
            # Heads of all tasks: a row's own could only be chosen by copying it for every row.
            heads = torch.arange(len(next(iter(private.values()))), device=task.device)
            tasks = heads[:, None].expand(-1, obs.shape[0])
            every = vmap(self._network, in_dims=(None, 0, None, 0))(shared, private, inputs, tasks)
            output = every[task, torch.arange(obs.shape[0], device=task.device)]
        else:
            output = self._network(shared, private, inputs, task)
        return split_policy(output)[0].tanh()

    def _group(self, prefix: str) -> Parameters:
        return {
            name.removeprefix(prefix): self.get_buffer(name.replace(".", "_"))
            for name in self._tensors
            if name.startswith(prefix)
        }


def policy_of(agent: MTSAC) -> Policy:
    """Return a copy of the agent's policy, on the CPU."""
    statistics = agent.standardize.state_dict()
    shared, private, standardizer = (
        {name: leaf.detach().cpu().clone() for name, leaf in leaves.items()}
        for leaves in (agent.actor.shared, agent.actor.private, {name: statistics[name] for name in ("mean", "std")})
    )
    return Policy(agent.actor.network, shared, private, **standardizer).eval()
