"""The agent equals a plain SAC that loops over its tasks, and moments are those of the right gradients."""

import pytest
import torch
from torch.utils._pytree import tree_map

from mtrl.aggregators import make
from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.system import Aggregation
from mtrl.gradients import task_gradients
from mtrl.seeding import copy_generator
from tests.agents.plain_sac import FAST, PlainSAC, assert_learns_like_plain
from tests.agents.small_agent import (
    ACTION_DIM,
    NUM_TASKS,
    batch_for,
    build,
    every_network,
    parameters,
)
from tests.aggregators.traits import is_identity_for_one_task, sees_gradients_of_parameters


@pytest.mark.parametrize("method", [name for name in sees_gradients_of_parameters() if is_identity_for_one_task(name)])
@pytest.mark.parametrize("min_obs_std", [None, 0.1])
def test_one_task_equals_a_plain_single_task_sac(method, min_obs_std):
    # Such a method is the identity for one task.
    assert_learns_like_plain(build("mlp", method, num_tasks=1, min_obs_std=min_obs_std, **FAST))


@every_network
def test_three_tasks_equal_a_plain_loop_over_the_tasks(network_name):
    # Without standardised observations this is the fact of tests/bugs/test_learning_bugs.py.
    agent = build(network_name, "mean", min_obs_std=0.1, **FAST)
    agent.log_alpha.copy_(torch.tensor([0.1, 1.0, 0.4]).log())  # each task its own
    assert_learns_like_plain(agent)


@every_network
@pytest.mark.parametrize("name", ["critic", "actor"])
def test_gradients_of_all_tasks_at_once_equal_a_loop_over_the_tasks(network_name, name):
    agent, batch = build(network_name), batch_for()
    agent.update(batch_for(1))  # biases and output layers have left their small first values
    generator = copy_generator(agent.generators["update"])
    component, loss, inputs = {
        "critic": (agent.critic, agent._critic_loss, agent._critic_inputs(batch, generator)),
        "actor": (agent.actor, agent._actor_loss, agent._actor_inputs(batch, generator)),
    }[name]
    found = task_gradients(loss, component.shared, component.private, inputs)
    for task in range(NUM_TASKS):
        shared = {path: leaf.clone().requires_grad_() for path, leaf in component.shared.items()}
        private = {path: leaf[task].clone().requires_grad_() for path, leaf in component.private.items()}
        own_inputs = tree_map(lambda leaf, task=task: leaf[task], inputs)
        value, _ = loss(shared, private, own_inputs)
        value.backward()
        torch.testing.assert_close(found.losses[task], value.detach())
        for rows, leaves in ((found.shared, shared), (found.private, private)):
            assert rows.keys() == leaves.keys()
            for path, leaf in leaves.items():
                assert leaf.grad is not None
                assert leaf.grad.any(), path
                torch.testing.assert_close(rows[path][task], leaf.grad, rtol=1e-4, atol=1e-6, msg=path)


@every_network
def test_every_task_acts_by_its_own_policy(network_name):
    agent, obs = build(network_name, actor_lr=0.1), batch_for().obs
    agent.update(batch_for())  # tasks have the same first policy, nearly
    policy = PlainSAC(agent).actor
    noise = torch.randn(*obs.shape[:2], ACTION_DIM, generator=copy_generator(agent.generators["act"]))
    sampled, deterministic = agent.act(obs), agent.act_deterministic(obs)
    for task in range(NUM_TASKS):
        mean, log_std = policy(obs[task], task).detach().chunk(2, 1)
        torch.testing.assert_close(deterministic[task], mean.tanh())
        torch.testing.assert_close(sampled[task], (mean + log_std.clamp(-20, 2).exp() * noise[task]).tanh())
        other_mean, _ = policy(obs[task], (task + 1) % NUM_TASKS).detach().chunk(2, 1)
        assert (deterministic[task] - other_mean.tanh()).abs().max() > 0.01


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
    shared, private = agent.critic.parameters.views(agent.critic.adam.state["exp_avg"])
    for name, gradient in gradients.private.items():
        assert torch.allclose(private[name], 0.1 * gradient, rtol=1e-4, atol=1e-8), name
    if method == "mean":
        for name, rows in gradients.shared.items():
            assert torch.allclose(shared[name], 0.1 * rows.mean(0), rtol=1e-4, atol=1e-8), name
