"""Multi-task SAC: acting, what an update changes and what it must not, and the critics' targets."""

import copy
import math

import pytest
import torch
from torch import Tensor

from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import make
from mtrl.gradients import losses_at
from mtrl.interfaces import Batch, EnvSpec
from mtrl.networks import REGISTRY
from mtrl.registry import resolve
from mtrl.seeding import copy_generator
from tests.agents.small_agent import (
    ACTION_DIM,
    BATCH,
    CPU,
    NUM_TASKS,
    OBS_DIM,
    batch_for,
    build,
    changed,
    every_method,
    every_network,
    snapshot,
)
from tests.aggregators.traits import draws_random_numbers, learns, weighs_rows

# ---- acting


@every_network
def test_actions_lie_in_the_box_and_have_one_row_per_environment(network_name):
    agent = build(network_name)
    obs = 100 * torch.randn(NUM_TASKS, 4, OBS_DIM, generator=torch.Generator().manual_seed(1))
    for action in (agent.act(obs), agent.act_deterministic(obs)):
        assert action.shape == (NUM_TASKS, 4, ACTION_DIM)
        assert action.abs().max() <= 1
        assert not action.requires_grad


@every_network
def test_deterministic_actions_draw_no_random_numbers(network_name):
    agent = build(network_name)
    before, global_before = snapshot(agent), torch.get_rng_state()
    first = agent.act_deterministic(batch_for().obs)
    assert torch.equal(first, agent.act_deterministic(batch_for().obs))
    assert changed(before, snapshot(agent)) == set()
    assert torch.equal(torch.get_rng_state(), global_before)


def test_sampled_actions_draw_from_the_acting_stream_alone():
    agent = build()
    before, global_before = snapshot(agent), torch.get_rng_state()
    first = agent.act(batch_for().obs)
    assert not torch.equal(first, agent.act(batch_for().obs))
    assert changed(before, snapshot(agent)) == {"/generators/act"}
    assert torch.equal(torch.get_rng_state(), global_before)


def test_sampled_actions_follow_the_seed_they_are_given():
    agent, other, obs = build(seed=0), build(seed=0), batch_for().obs
    agent.act(obs)
    before = snapshot(agent)
    agent.seed_actions(7)
    assert changed(before, snapshot(agent)) == {"/generators/act"}
    other.seed_actions(7)
    assert torch.equal(agent.act(obs), other.act(obs))
    other.seed_actions(8)
    assert not torch.equal(agent.act(obs), other.act(obs))


def test_first_actions_are_near_zero_and_explore_with_standard_deviation_near_one():
    # Output layers start within 1e-3, so mean and log standard deviation are close to 0: u ~ N(0, 1).
    agent = build(hidden_dims=(64, 64))
    obs = torch.randn(NUM_TASKS, 1000, OBS_DIM, generator=torch.Generator().manual_seed(1))
    assert agent.act_deterministic(obs).abs().max() < 0.1
    u = agent.act(obs).atanh()
    assert u.std() == pytest.approx(1, abs=0.05)


# ---- what is updated


@every_network
@every_method
def test_update_changes_all_that_learns_and_nothing_else(network_name, method):
    agent = build(network_name, method)
    agent.update(batch_for(0))
    before = snapshot(agent)
    agent.update(batch_for(1))
    moved = changed(before, snapshot(agent))
    weights = {path for path in before if path.endswith(".weight")} | {"/temperature/log_alpha"}
    assert weights <= moved
    fixed = ("/generators/act", "/param_groups/", "/actor/generator", "/critic/generator")
    kept = {path for path in before if any(part in path for part in fixed)}
    draws = {"/critic/generator", "/actor/generator"} if draws_random_numbers(method) else set()
    assert moved & kept == draws
    for component in ("critic", "actor"):
        assert any(f"/{component}/aggregator/" in path for path in moved) == learns(method)
    assert "/generators/update" in moved


@every_network
@pytest.mark.parametrize("tau", [0.005, 1.0])
def test_targets_move_by_tau_towards_the_updated_critics(network_name, tau):
    agent = build(network_name, tau=tau)
    agent.update(batch_for(0))
    before = {name: leaf.clone() for name, leaf in (agent.target_shared | agent.target_private).items()}
    agent.update(batch_for(1))
    online = agent.critic.shared | agent.critic.private
    after = agent.target_shared | agent.target_private
    for name, leaf in before.items():
        expected = leaf.double() + tau * (online[name].double() - leaf.double())
        # float32 rounding only
        assert torch.allclose(after[name].double(), expected, rtol=2e-7, atol=1e-9), name
        assert not torch.equal(after[name], leaf) or torch.equal(online[name], leaf)


@every_network
def test_target_step_by_hand(network_name):
    # 1 + 0.25 (3 - 1) = 1.5; where something was not finite the targets stay.
    agent = build(network_name, tau=0.25)
    targets = [*agent.target_shared.values(), *agent.target_private.values()]
    for value, leaves in ((1.0, targets), (3.0, agent.critic.leaves)):
        for leaf in leaves:
            leaf.fill_(value)
    for is_finite, expected in ((False, 1.0), (True, 1.5)):
        agent._move_targets(torch.tensor(is_finite))
        assert all((leaf == expected).all() for leaf in targets)
    assert all((leaf == 3).all() for leaf in agent.critic.leaves)


def test_targets_start_as_copies_of_the_critics():
    agent = build("multi_head")
    for target, online in ((agent.target_shared, agent.critic.shared), (agent.target_private, agent.critic.private)):
        assert all(torch.equal(target[name], leaf) for name, leaf in online.items())
        assert all(target[name].data_ptr() != leaf.data_ptr() for name, leaf in online.items())


def test_each_temperature_follows_its_own_entropy():
    # At standard deviation 1 the entropy is near its largest, 2 log 2 = 1.4 for the uniform distribution on the box,
    # above the target -2. With log standard deviation -3 it is about 2 (1.4 - 3) = -3.2, below the target.
    agent = build("multi_head", temperature_lr=0.1)
    agent.actor.private["output.bias"][1, ACTION_DIM:] = -3.0
    before = agent.log_alpha.clone()
    metrics = agent.update(batch_for())
    entropy, target = metrics["entropy"], -float(ACTION_DIM)
    assert entropy[1] < target < min(entropy[0], entropy[2])
    # Adam's first step has the length of the learning rate.
    assert torch.allclose(agent.log_alpha - before, torch.tensor([-0.1, 0.1, -0.1]), atol=1e-5)


@pytest.mark.parametrize(("above", "step"), [(10.0, 0.1), (-10.0, -0.1)])
def test_a_shared_temperature_follows_the_mean_entropy(above, step):
    # With log standard deviation -3 the entropy of one task lies 4 or more below the others'; Adam's first step has
    # the length of the learning rate, upwards where the mean entropy is below the target.
    agent = build("multi_head", temperature_lr=0.1, temperatures="shared")
    agent.actor.private["output.bias"][1, ACTION_DIM:] = -3.0
    copied = copy.deepcopy(agent)
    entropy = copied.update(batch_for())["entropy"]
    agent.target_entropy = float(entropy.mean()) + 0.01 * above
    assert entropy.min() < agent.target_entropy < entropy.max()
    agent.update(batch_for())
    assert agent.log_alpha.tolist() == pytest.approx([step] * NUM_TASKS, rel=1e-3)


def test_a_shared_temperature_stays_one_where_entropies_differ():
    agent = build("multi_head", temperature_lr=0.1, actor_lr=0.1, temperatures="shared")
    entropies = [agent.update(batch_for(seed))["entropy"] for seed in range(5)]
    assert entropies[-1].std() > 1e-3
    assert len(set(agent.log_alpha.tolist())) == 1
    assert agent.log_alpha[0] != 0


def test_temperature_metric_is_the_one_used():
    agent = build(initial_temperature=0.3)
    assert torch.allclose(agent.update(batch_for())["temperature"], torch.full((NUM_TASKS,), 0.3))
    assert not torch.allclose(agent.update(batch_for())["temperature"], torch.full((NUM_TASKS,), 0.3), atol=1e-5)


@every_method
def test_metrics_are_detached_and_per_task(method):
    metrics = build("multi_head", method).update(batch_for())
    assert not any(value.requires_grad for value in metrics.values())
    per_task = {
        *("critic_loss", "critic_nonfinite", "critic_weight", "actor_loss", "actor_nonfinite", "actor_weight"),
        *("q", "entropy", "temperature", "temperature_nonfinite"),
    }
    if not weighs_rows(method):
        per_task -= {"critic_weight", "actor_weight"}
    scalars = {"direction_norm/critic", "direction_norm/actor"}
    assert metrics.keys() == per_task | scalars
    assert all(metrics[name].shape == (NUM_TASKS,) for name in per_task)
    assert all(metrics[name].shape == () for name in scalars)


def test_gradient_is_clipped_to_its_largest_norm():
    # With beta1 = 0.9 the first moment after one step is 0.1 times the clipped gradient.
    agent = build(max_grad_norm=1e-3)
    norm = agent.update(batch_for())["direction_norm/critic"]
    assert norm > 1e-2
    assert agent.critic.adam.state["exp_avg"].norm() == pytest.approx(1e-4, rel=1e-3)


def test_a_loud_task_shortens_no_other_step():
    # With DiBS-MTL the direction does not see the scale of a loss; clipping trunk and heads by one norm would.
    found = []
    for scale in (torch.ones(NUM_TASKS), torch.tensor([1e3, *[1.0] * (NUM_TASKS - 1)])):
        agent = build("multi_head", "dibs", max_grad_norm=1e-2)
        inputs = agent._critic_inputs(batch_for(), torch.Generator().manual_seed(0))

        def loss(shared, private, frozen, loss=agent._critic_loss):
            value, metrics = loss(shared, private, frozen[0])
            return frozen[1] * value, metrics

        _, metrics, _ = agent.critic.descend(loss, (inputs, scale), torch.tensor(True))
        assert metrics["direction_norm/critic"] > 0.02  # clipped
        found.append(agent.critic.parameters.views(agent.critic.adam.state["exp_avg"]))
    (shared, private), (loud_shared, loud_private) = found
    assert all(torch.allclose(leaf, loud_shared[name], rtol=1e-4, atol=1e-8) for name, leaf in shared.items())
    assert all(torch.equal(leaf[1:], loud_private[name][1:]) for name, leaf in private.items())
    norms = torch.stack([leaf.square().flatten(1).sum(1) for leaf in loud_private.values()]).sum(0).sqrt()
    assert torch.allclose(norms, torch.full((NUM_TASKS,), 1e-3), rtol=1e-3)  # a tenth of what is allowed, each


# ---- critics' targets


def critic_targets(agent: MTSAC, batch: Batch) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return agent._critic_inputs(batch, generator).target


def test_truncation_bootstraps_and_termination_does_not():
    # A batch knows only `terminated`: a step cut by the time limit carries 0 there and its true successor.
    agent = build()
    going_on = batch_for()._replace(terminated=torch.zeros(NUM_TASKS, BATCH))
    ended = going_on._replace(terminated=torch.ones(NUM_TASKS, BATCH))
    assert torch.equal(critic_targets(agent, ended), ended.reward)
    assert not torch.isclose(critic_targets(agent, going_on), going_on.reward).any()


def test_targets_look_at_the_next_observation_alone():
    # metaworld-algorithms' per-task branch samples the next actions at `observations`; ours must not see them.
    agent, batch = build(), batch_for()
    expected = critic_targets(agent, batch)
    other = batch_for(5)
    assert torch.equal(critic_targets(agent, batch._replace(obs=other.obs, action=other.action)), expected)
    assert not torch.isclose(critic_targets(agent, batch._replace(next_obs=other.next_obs)), expected).all()


def test_the_temperature_of_a_task_enters_its_own_losses_alone():
    agent, batch = build(initial_temperature=0.5), batch_for()
    generator = copy_generator(agent.generators["update"])

    def targets_and_actor_losses():
        actor_inputs = agent._actor_inputs(batch, copy_generator(generator))
        losses = losses_at(agent._actor_loss, agent.actor.shared, agent.actor.private, actor_inputs)
        return critic_targets(agent, batch), losses

    before = targets_and_actor_losses()
    agent.log_alpha[0] += 1.0
    for old, new in zip(before, targets_and_actor_losses(), strict=True):
        moved = (old != new).reshape(NUM_TASKS, -1).any(1)
        assert moved.tolist() == [True, False, False]


@every_network
def test_targets_use_the_target_critics(network_name):
    agent, batch = build(network_name), batch_for()
    expected = critic_targets(agent, batch)
    for leaf in (agent.critic.shared | agent.critic.private).values():
        leaf.add_(1.0)
    assert torch.equal(critic_targets(agent, batch), expected)


# ---- settings, construction


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("critic_lr", "actor_lr", "temperature_lr", "adam_eps") for value in (0.0, -1.0)),
        *(("max_grad_norm", 0.0), ("initial_temperature", 0.0), ("critic_lr", math.nan)),
        *(("batch_size", 0), ("gamma", -0.1), ("gamma", 1.1), ("tau", 0.0), ("tau", 1.1)),
    ],
)
def test_impossible_setting_is_refused_at_construction(name, value):
    with pytest.raises(ValueError, match=name):
        MTSAC.Config(**{name: value})


def test_wrong_number_of_task_weights_is_refused_at_construction():
    network = resolve(REGISTRY, "network", "mlp")
    spec = EnvSpec(task_names=("a", "b"), envs_per_task=1, obs_dim=3, action_dim=1, max_episode_steps=5, num_goals=1)
    with pytest.raises(ValueError, match="2 tasks, 3 weights"):
        MTSAC(
            MTSAC.Config(),
            spec=spec,
            make_network=lambda **sizes: network(network.Config(hidden_dims=(4,)), **sizes),
            critic_aggregator=make("mean", weights=(1.0, 1.0, 1.0)),
            actor_aggregator=make("mean"),
            device=CPU,
            seed=0,
        )
