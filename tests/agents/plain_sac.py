"""Soft actor-critic as one would write it down, looping over tasks: modules, autograd, torch's Adam, formulas in line.

Independent of `mtrl`, which only lends it the first parameters. With one task this is single-task SAC.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mtrl.agents.mtsac import MTSAC
from mtrl.interfaces import Batch, Parameters
from tests.agents.small_agent import BATCH, batch_for, parameters

FAST: dict[str, Any] = {"actor_lr": 3e-3, "critic_lr": 3e-3, "temperature_lr": 3e-3, "tau": 0.05}
"""Settings with which weights move by up to 0.03 in ten updates."""


def assert_learns_like_plain(agent: MTSAC) -> None:
    """Compare all parameters after each of ten updates, on batches with ended episodes.

    Every other update is clipped: Adam would not notice a factor that all gradients share.
    """
    start, plain = parameters(agent), PlainSAC(agent)
    for step in range(10):
        batch = batch_for(step, num_tasks=len(agent.log_alpha))
        ended = (torch.arange(BATCH) % 4 == step % 4).float().expand_as(batch.reward)
        batch = batch._replace(obs=3 * batch.obs + 1, next_obs=3 * batch.next_obs + 1, terminated=ended)
        plain.max_grad_norm = 1e9 if step % 2 else 1e-3
        agent.critic.max_grad_norm = agent.actor.max_grad_norm = plain.max_grad_norm
        metrics = agent.update(batch)
        plain.update(batch)
        found, expected = parameters(agent), plain.parameters()
        assert found.keys() == expected.keys()
        # Both work in float32 with other orders of summation: what rounding leaves stays below 1e-5.
        strays = [path for path, leaf in expected.items() if not (found[path] - leaf).abs().max() < 1e-5]
        assert not strays, f"update {step} is unlike a plain SAC's from {strays[0]} on"
        norms = metrics["direction_norm/critic"], metrics["direction_norm/actor"]
        assert step % 2 or min(norms) > 1.5 * plain.max_grad_norm
    found = parameters(agent)
    assert min(float((found[path] - leaf).abs().max()) for path, leaf in start.items()) > 1e-3


class PlainNetwork(nn.Module):
    """One perceptron on inputs and one-hot task or, where there are private parameters, a trunk and a head per task."""

    def __init__(self, shared: Parameters, private: Parameters, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        names = [name.removesuffix(".weight") for name in shared if name.endswith(".weight")]
        self.layers = nn.ModuleList(_linear(shared[f"{name}.weight"], shared[f"{name}.bias"]) for name in names)
        heads = zip(private["output.weight"], private["output.bias"], strict=True) if private else ()
        self.heads = nn.ModuleList(_linear(weight, bias) for weight, bias in heads)

    def forward(self, inputs: Tensor, task: int) -> Tensor:
        x = inputs
        if not self.heads:
            x = torch.cat([x, torch.eye(self.num_tasks)[task].expand(len(x), -1)], dim=1)
        layers = [*self.layers, self.heads[task]] if self.heads else self.layers
        for layer in layers[:-1]:
            x = layer(x).relu()
        return layers[-1](x)

    def leaves(self, prefix: str = "") -> dict[str, Tensor]:
        """Return the parameters under the paths they have in the agent's state."""
        names = [f"hidden.{index}" for index in range(len(self.layers))]
        if not self.heads:
            names[-1] = "output"
        parts = ("weight", "bias")
        leaves = {
            f"shared/{prefix}{name}.{part}": getattr(layer, part)
            for name, layer in zip(names, self.layers, strict=True)
            for part in parts
        }
        if self.heads:
            for part in parts:
                leaves[f"private/{prefix}output.{part}"] = torch.stack([getattr(head, part) for head in self.heads])
        return leaves


class PlainSAC:
    """The mean over the tasks' losses, twin critics, a temperature per task, clipped gradients, moving targets."""

    def __init__(self, agent: MTSAC) -> None:
        self.config = agent.config
        self.num_tasks, self.action_dim = len(agent.log_alpha), agent.action_dim
        self.actor = PlainNetwork(agent.actor.shared, agent.actor.private, self.num_tasks)
        self.critics = nn.ModuleList(
            PlainNetwork(_member(agent.critic.shared, index), _member(agent.critic.private, index), self.num_tasks)
            for index in range(2)
        )
        self.targets = copy.deepcopy(self.critics)
        self.log_alphas = [value.clone().requires_grad_() for value in agent.log_alpha]
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=self.config.actor_lr)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=self.config.critic_lr)
        self.alpha_optimizer = torch.optim.Adam(self.log_alphas, lr=self.config.temperature_lr)
        self.generator = torch.Generator()
        self.generator.set_state(agent.generators["update"].get_state())  # the same noise
        self.max_grad_norm = self.config.max_grad_norm
        self.mean_and_std: tuple[Tensor, Tensor] | None = None

    def parameters(self) -> dict[str, Tensor]:
        """Return everything that is learned, in the order of learning, under the paths it has in the agent's state."""
        leaves = _twins("critic", self.critics)
        leaves |= {f"/actor/{path}": leaf for path, leaf in self.actor.leaves().items()}
        leaves["/temperature/log_alpha"] = torch.stack(self.log_alphas)
        leaves |= _twins("target", self.targets)
        return {path: leaf.detach() for path, leaf in leaves.items()}

    def update(self, batch: Batch) -> None:
        batch = self._standardized(batch)
        tasks = range(self.num_tasks)
        noise = torch.randn(batch.action.shape, generator=self.generator)
        critic_losses = [self._critic_loss(batch, noise, task) for task in tasks]
        self._descend(critic_losses, self.critics, self.critic_optimizer)

        noise = torch.randn(batch.action.shape, generator=self.generator)
        actor_losses, log_probs = zip(*(self._actor_loss(batch, noise, task) for task in tasks), strict=True)
        self._descend(actor_losses, self.actor, self.actor_optimizer)

        self.alpha_optimizer.zero_grad()
        for log_alpha, log_prob in zip(self.log_alphas, log_probs, strict=True):
            (-log_alpha * (log_prob.detach() - self.action_dim)).mean().backward()  # target entropy -dim(action)
        self.alpha_optimizer.step()

        with torch.no_grad():
            for target, online in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                target.copy_((1 - self.config.tau) * target + self.config.tau * online)

    def _standardized(self, batch: Batch) -> Batch:
        if self.config.min_obs_std is None:
            return batch
        if self.mean_and_std is None:
            rows = batch.obs.reshape(-1, batch.obs.shape[-1])
            variance = (rows - rows.mean(0)).square().mean(0)
            self.mean_and_std = rows.mean(0), variance.sqrt().clamp(min=self.config.min_obs_std)
        mean, std = self.mean_and_std
        return batch._replace(obs=(batch.obs - mean) / std, next_obs=(batch.next_obs - mean) / std)

    def _critic_loss(self, batch: Batch, noise: Tensor, task: int) -> Tensor:
        obs, action, reward, next_obs, terminated = (part[task] for part in batch[:5])
        with torch.no_grad():
            next_action, next_log_prob = self._sample(next_obs, noise[task], task)
            next_q = torch.minimum(*self._q(self.targets, next_obs, next_action, task))
            next_value = next_q - self.log_alphas[task].exp() * next_log_prob
            target = reward + self.config.gamma * (1 - terminated) * next_value
        first, second = self._q(self.critics, obs, action, task)
        return nn.functional.mse_loss(first, target) + nn.functional.mse_loss(second, target)

    def _actor_loss(self, batch: Batch, noise: Tensor, task: int) -> tuple[Tensor, Tensor]:
        action, log_prob = self._sample(batch.obs[task], noise[task], task)
        q = torch.minimum(*self._q(self.critics, batch.obs[task], action, task))
        return (self.log_alphas[task].exp().detach() * log_prob - q).mean(), log_prob

    def _sample(self, obs: Tensor, noise: Tensor, task: int) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(obs, task).chunk(2, 1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        u = mean + normal.stddev * noise
        action = torch.tanh(u)
        log_prob = normal.log_prob(u) - torch.log1p(-action.double().square()).float()
        return action, log_prob.sum(1)

    @staticmethod
    def _q(critics: Iterable[nn.Module], obs: Tensor, action: Tensor, task: int) -> list[Tensor]:
        return [critic(torch.cat([obs, action], 1), task).squeeze(1) for critic in critics]

    def _descend(self, losses: Iterable[Tensor], networks: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        (sum(losses, torch.zeros(())) / self.num_tasks).backward()
        for name, leaf in networks.named_parameters():
            if "heads." in name and leaf.grad is not None:
                leaf.grad *= self.num_tasks  # a head serves one task and follows that task's loss, undivided
        own = [{f"heads.{task}.weight", f"heads.{task}.bias"} for task in range(self.num_tasks)]
        leaves = [
            (name.partition("heads.")[1] + name.partition("heads.")[2], leaf)
            for name, leaf in networks.named_parameters()
        ]
        for names in ({""}, *own):  # the trunk, and every head by itself
            nn.utils.clip_grad_norm_([leaf for name, leaf in leaves if name in names], self.max_grad_norm)
        optimizer.step()


def _twins(name: str, networks: Iterable[nn.Module]) -> dict[str, Tensor]:
    leaves = {}
    for index, network in enumerate(networks):
        assert isinstance(network, PlainNetwork)
        leaves |= {f"/{name}/{path}": leaf for path, leaf in network.leaves(f"{index}.").items()}
    return leaves


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight.clone(), "bias": bias.clone()})
    return layer


def _member(parameters: Parameters, index: int) -> Parameters:
    return {name[2:]: leaf for name, leaf in parameters.items() if name.startswith(f"{index}.")}
