"""One task equals a plain single-task SAC, and moments are those of the right gradients."""

import copy

import pytest
import torch
from torch import nn

from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import make, names
from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.system import Aggregation
from mtrl.gradients import task_gradients
from mtrl.interfaces import Batch
from mtrl.seeding import copy_generator
from tests.agents.small_agent import (
    ACTION_DIM,
    NUM_TASKS,
    batch_for,
    build,
    every_network,
    parameters,
)
from tests.aggregators.traits import is_identity_for_one_task


class PlainSAC:
    """Single-task SAC as one would write it down: modules, autograd, torch's Adam, the formulas in line."""

    def __init__(self, agent: MTSAC) -> None:
        self.config = agent.config
        self.actor = self._perceptron(agent.actor.shared)
        self.critics = nn.ModuleList(self._perceptron(self._member(agent.critic.shared, index)) for index in range(2))
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = agent.log_alpha.clone().requires_grad_()
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=agent.config.actor_lr)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=agent.config.critic_lr)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=agent.config.temperature_lr)
        self.generator = torch.Generator()
        self.generator.set_state(agent.generators["update"].get_state())  # the same noise

    @staticmethod
    def _member(parameters, index):
        return {name[2:]: leaf for name, leaf in parameters.items() if name.startswith(f"{index}.")}

    @staticmethod
    def _perceptron(parameters) -> nn.Sequential:
        layers = []
        for name in ("hidden.0", "hidden.1", "output"):
            weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight.clone(), "bias": bias.clone()})
            layers += [layer, nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def _sample(self, obs):
        one_hot = torch.ones(len(obs), 1)  # of the only task
        mean, log_std = self.actor(torch.cat([obs, one_hot], 1)).chunk(2, 1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        u = mean + normal.stddev * torch.randn(1, *mean.shape, generator=self.generator)[0]
        action = torch.tanh(u)
        log_prob = normal.log_prob(u) - torch.log1p(-action.double().square()).float()
        return action, log_prob.sum(1)

    @staticmethod
    def _q(critics, obs, action):
        one_hot = torch.ones(len(obs), 1)
        return [critic(torch.cat([obs, action, one_hot], 1)).squeeze(1) for critic in critics]

    def update(self, batch: Batch) -> None:
        obs, action, reward, next_obs, terminated = (part[0] for part in batch[:5])
        with torch.no_grad():
            next_action, next_log_prob = self._sample(next_obs)
            next_q = torch.minimum(*self._q(self.targets, next_obs, next_action))
            next_value = next_q - self.log_alpha.exp() * next_log_prob
            target = reward + self.config.gamma * (1 - terminated) * next_value
        first, second = self._q(self.critics, obs, action)
        critic_loss = nn.functional.mse_loss(first, target) + nn.functional.mse_loss(second, target)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        nn.utils.clip_grad_norm_(self.critics.parameters(), self.config.max_grad_norm)
        self.critic_optimizer.step()

        new_action, log_prob = self._sample(obs)
        actor_loss = self.log_alpha.exp().detach() * log_prob - torch.minimum(*self._q(self.critics, obs, new_action))
        self.actor_optimizer.zero_grad()
        actor_loss.mean().backward()
        nn.utils.clip_grad_norm_(self.actor.parameters(), self.config.max_grad_norm)
        self.actor_optimizer.step()

        alpha_loss = -(self.log_alpha * (log_prob.detach() - ACTION_DIM)).mean()
        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()
        self.alpha_optimizer.step()

        with torch.no_grad():
            for target_leaf, leaf in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                target_leaf.copy_((1 - self.config.tau) * target_leaf + self.config.tau * leaf)


@pytest.mark.parametrize("method", [name for name in names() if is_identity_for_one_task(name)])
def test_one_task_equals_a_plain_single_task_sac(method):
    # Both work in float32 with other orders of summation. Adam at 3e-3 moves a weight by up to 0.03 in ten updates;
    # what rounding leaves stays below 1e-5.
    agent = build("mlp", method, num_tasks=1, actor_lr=3e-3, critic_lr=3e-3, temperature_lr=3e-3, tau=0.05)
    start = parameters(agent)
    plain = PlainSAC(agent)
    for step in range(10):
        agent.update(batch_for(step, num_tasks=1))
        plain.update(batch_for(step, num_tasks=1))

    pairs = [
        *zip(agent.actor.shared.values(), plain.actor.parameters(), strict=True),
        *zip(agent.critic.shared.values(), plain.critics.parameters(), strict=True),
        *zip(agent.target_shared.values(), plain.targets.parameters(), strict=True),
        (agent.log_alpha, plain.log_alpha),
    ]
    assert max(float((found - expected).detach().abs().max()) for found, expected in pairs) < 1e-5
    moved = parameters(agent)
    assert min(float((moved[name] - leaf).abs().max()) for name, leaf in start.items()) > 1e-3


class MeanByGramian(Aggregator):
    """The mean, but by way of the rows."""

    def aggregate(self, system):
        return Aggregation(torch.full((system.num_tasks,), 1 / system.num_tasks, dtype=torch.float64))


@every_network
@pytest.mark.parametrize("num_tasks", [1, NUM_TASKS])
def test_mean_by_one_backward_pass_learns_like_the_mean_of_the_rows(network_name, num_tasks):
    # One backward pass returns the gradients of the heads in another memory order than the rows do, and the fused Adam
    # kernel does not look at strides: heads were once trained on scrambled gradients. Float32 rounding: below 1e-5.
    by_losses, by_rows = (
        build(network_name, method, num_tasks=num_tasks, actor_lr=3e-3, critic_lr=3e-3)
        for method in (make("mean"), MeanByGramian())
    )
    start = parameters(by_rows)
    for step in range(5):
        by_losses.update(batch_for(step, num_tasks))
        by_rows.update(batch_for(step, num_tasks))
    found, expected = parameters(by_losses), parameters(by_rows)
    assert max(float((found[name] - leaf).abs().max()) for name, leaf in expected.items()) < 1e-5
    assert max(float((start[name] - leaf).abs().max()) for name, leaf in expected.items()) > 1e-3


@every_network
@pytest.mark.parametrize("method", ["mean", "aligned"])
def test_moments_are_those_of_the_gradients_entry_by_entry(network_name, method):
    # After the first step Adam's first moment is (1 - 0.9) times the clipped gradient of that very entry.
    agent = build(network_name, method, max_grad_norm=1e9)
    inputs = agent._critic_inputs(batch_for(), copy_generator(agent.generators["update"]))
    gradients = task_gradients(agent._critic_loss, agent.critic.shared, agent.critic.private, inputs)
    agent.update(batch_for())
    moments = dict(
        zip([*agent.critic.shared, *agent.critic.private], agent.critic.adam.optimizer.state.values(), strict=True)
    )
    for name, gradient in gradients.private.items():
        assert torch.allclose(moments[name]["exp_avg"], 0.1 * gradient, rtol=1e-4, atol=1e-8), name
    if method == "mean":
        for name, rows in gradients.shared.items():
            assert torch.allclose(moments[name]["exp_avg"], 0.1 * rows.mean(0), rtol=1e-4, atol=1e-8), name
