"""Multi-task SAC: what an update changes, what it must not, and one task against a plain single-task SAC."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import make, names
from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.system import Aggregation
from mtrl.gradients import losses_at, task_gradients
from mtrl.interfaces import Batch, EnvSpec
from mtrl.networks import REGISTRY
from mtrl.registry import resolve
from mtrl.seeding import copy_generator
from tests.aggregators.doubles import LossShare

NUM_TASKS, OBS_DIM, ACTION_DIM, BATCH = 3, 5, 2, 8
CPU = torch.device("cpu")
every_network = pytest.mark.parametrize("network_name", list(REGISTRY))
every_method = pytest.mark.parametrize("method", names())


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


def optimizers(agent: MTSAC) -> list[torch.optim.Adam]:
    return [adam.optimizer for adam in (agent.actor.adam, agent.critic.adam, agent.temperature_adam)]


# ------------------------------------------------------------------------------------------------------------ acting


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


def test_first_actions_are_near_zero_and_explore_with_standard_deviation_near_one():
    # Output layers start within 1e-3, so mean and log standard deviation are close to 0: u ~ N(0, 1).
    agent = build(hidden_dims=(64, 64))
    obs = torch.randn(NUM_TASKS, 1000, OBS_DIM, generator=torch.Generator().manual_seed(1))
    assert agent.act_deterministic(obs).abs().max() < 0.1
    u = agent.act(obs).atanh()
    assert u.std() == pytest.approx(1, abs=0.05)


# --------------------------------------------------------------------------------------------------- what is updated


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
    fixed = ("/generators/act", "/aggregator/", "/param_groups/", "/actor/generator", "/critic/generator")
    kept = {path for path in before if any(part in path for part in fixed)}
    draws = {"/critic/generator", "/actor/generator"} if method == "pcgrad" else set()
    assert moved & kept == draws
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
        *("q", "entropy", "temperature"),
    }
    scalars = {"direction_norm/critic", "direction_norm/actor"}
    assert metrics.keys() == per_task | scalars
    assert all(metrics[name].shape == (NUM_TASKS,) for name in per_task)
    assert all(metrics[name].shape == () for name in scalars)


def test_gradient_is_clipped_to_its_largest_norm():
    # With beta1 = 0.9 the first moment after one step is 0.1 times the clipped gradient.
    agent = build(max_grad_norm=1e-3)
    norm = agent.update(batch_for())["direction_norm/critic"]
    assert norm > 1e-2
    moments = [state["exp_avg"] for state in agent.critic.adam.optimizer.state_dict()["state"].values()]
    assert torch.cat([moment.flatten() for moment in moments]).norm() == pytest.approx(1e-4, rel=1e-3)


# --------------------------------------------------------------------------------------------------- critics' targets


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


@every_network
def test_targets_use_the_target_critics(network_name):
    agent, batch = build(network_name), batch_for()
    expected = critic_targets(agent, batch)
    for leaf in (agent.critic.shared | agent.critic.private).values():
        leaf.add_(1.0)
    assert torch.equal(critic_targets(agent, batch), expected)


# --------------------------------------------------------------------------------------------------------- nonfinite


def learned(agent: MTSAC) -> dict[str, Any]:
    return {path: value for path, value in snapshot(agent).items() if "/generator" not in path}


@every_network
@every_method
@pytest.mark.parametrize("field", ["obs", "action", "reward", "next_obs"])
def test_batch_that_is_not_finite_changes_nothing_and_flags_its_task(network_name, method, field):
    agent = build(network_name, method)
    agent.update(batch_for(0))
    before = learned(agent)
    batch = batch_for(1)
    getattr(batch, field)[1, 3] = float("nan")
    metrics = agent.update(batch)
    assert metrics["critic_nonfinite"].tolist() == [False, True, False]
    assert metrics["actor_nonfinite"].tolist() == [False, field == "obs", False]
    assert changed(before, learned(agent)) == set()
    assert not agent.update(batch_for(2))["critic_nonfinite"].any()
    assert changed(before, learned(agent))


def test_batch_that_is_not_finite_leaves_the_state_of_a_method_alone():
    agent = build("multi_head", LossShare(LossShare.Config()))
    agent.update(batch_for(0))
    before = snapshot(agent)
    batch = batch_for(1)
    batch.reward[1, 3] = float("nan")
    agent.update(batch)
    average = "/critic/aggregator/average"
    assert average not in changed(before, snapshot(agent))
    assert not agent.update(batch_for(2))["critic_nonfinite"].any()  # not poisoned for ever
    assert average in changed(before, snapshot(agent))


def test_a_method_that_looks_again_sees_the_losses_after_the_step_on_the_same_batch():
    agent, batch = build("multi_head", LossShare(LossShare.Config()), critic_lr=0.01), batch_for(0)
    inputs = agent._critic_inputs(batch, copy_generator(agent.generators["update"]))
    before = losses_at(agent._critic_loss, agent.critic.shared, agent.critic.private, inputs)
    agent.update(batch)
    after = losses_at(agent._critic_loss, agent.critic.shared, agent.critic.private, inputs)
    assert not torch.allclose(before, after)
    assert torch.equal(snapshot(agent)["/critic/aggregator/average"], after.double())


def test_norm_that_overflows_is_flagged():
    # Rewards of 1e18: losses near 1e36 are finite. Gradients near 1e18 x 100 are finite, their squares are not.
    agent = build()
    batch = batch_for()
    batch.reward.mul_(1e18)
    batch.obs.mul_(1e3)
    metrics = agent.update(batch)
    assert metrics["critic_loss"].isfinite().all()
    assert metrics["critic_nonfinite"].all()


@every_method
def test_first_batch_that_is_not_finite_leaves_fresh_moments(method):
    agent = build("multi_head", method)
    before = parameters(agent)
    batch = batch_for()
    batch.reward[0, 0] = float("inf")
    agent.update(batch)
    assert changed(before, parameters(agent)) == set()
    for optimizer in optimizers(agent):
        assert not any(value.any() for state in optimizer.state.values() for value in state.values())


@every_method
def test_actor_that_is_not_finite_flags_its_task_and_stops_actor_and_temperatures(method):
    agent = build("multi_head", method)
    agent.update(batch_for(0))
    before = snapshot(agent)
    agent.critic.private["0.output.bias"][2] = float("nan")  # the actor's loss sees the online critics, the target not
    metrics = agent.update(batch_for(1)._replace(obs=torch.zeros(NUM_TASKS, BATCH, OBS_DIM)))
    assert metrics["actor_nonfinite"].tolist() == [False, False, True]
    moved = changed(before, snapshot(agent))
    kept = ("/actor/shared", "/actor/private", "/actor/optimizer", "/temperature")
    assert not any(path.startswith(kept) for path in moved)


@every_method
def test_diagnosis_of_a_batch_that_is_not_finite_does_not_raise(method):
    agent = build("multi_head", method)
    batch = batch_for()
    batch.reward[1, 0] = float("nan")
    metrics = agent.diagnose(batch)
    assert metrics["critic_gradient_norm"].isfinite().tolist() == [True, False, True]


# ---------------------------------------------------------------------------------------------------------- diagnose


@every_network
@every_method
def test_diagnosis_changes_no_state(network_name, method):
    agent = build(network_name, method)
    agent.update(batch_for(0))
    before, global_before = snapshot(agent), torch.get_rng_state()
    agent.diagnose(batch_for(1))
    assert changed(before, snapshot(agent)) == set()
    assert torch.equal(torch.get_rng_state(), global_before)


def test_diagnosis_changes_no_state_inside_a_method():
    agent = build("multi_head", LossShare(LossShare.Config()))
    agent.update(batch_for(0))
    before = snapshot(agent)
    agent.diagnose(batch_for(1))
    assert changed(before, snapshot(agent)) == set()
    agent.update(batch_for(1))
    assert {"/critic/aggregator/average", "/actor/aggregator/average"} <= changed(before, snapshot(agent))


@every_method
def test_diagnosis_does_not_alter_the_updates_that_follow(method):
    plain, diagnosed = build("multi_head", method), build("multi_head", method)
    for seed in range(3):
        diagnosed.diagnose(batch_for(seed))
        for agent in (plain, diagnosed):
            agent.update(batch_for(seed))
    assert changed(snapshot(plain), snapshot(diagnosed)) == set()


@every_method
def test_diagnosis_measures_critic_and_actor(method):
    metrics = build("multi_head", method).diagnose(batch_for())
    for component in ("critic", "actor"):
        assert metrics[f"{component}_gradient_norm"].shape == (NUM_TASKS,)
        assert metrics[f"{component}_cosine"].shape == (NUM_TASKS, NUM_TASKS)
        assert 0 <= metrics[f"conflict_share/{component}"] <= 1
        assert metrics[f"condition_number/{component}"] >= 1
        assert (f"condition_number_after/{component}" in metrics) == (method != "mean")


def test_condition_number_after_alignment_is_one():
    metrics = build("multi_head", "aligned").diagnose(batch_for())
    for component in ("critic", "actor"):
        assert metrics[f"condition_number_after/{component}"] == pytest.approx(1, abs=1e-6)


def test_diagnosed_gradients_are_those_of_the_next_update():
    agent = build("multi_head", "mean")
    norm = agent.diagnose(batch_for())["critic_gradient_norm"]
    weights = agent.update(batch_for())["critic_weight"]
    assert norm.shape == weights.shape
    # The same noise gives the same losses: the diagnosis drew from a copy of the update's stream.
    other = build("multi_head", "mean")
    assert torch.equal(other.diagnose(batch_for())["critic_gradient_norm"], norm)


# ------------------------------------------------------------------------------------------------ seeds, state dicts


@every_network
@every_method
def test_same_seed_gives_bit_identical_agents(network_name, method):
    first, second = (build(network_name, method, seed=4) for _ in range(2))
    torch.manual_seed(0)
    for step in range(5):
        first.update(batch_for(step))
    torch.manual_seed(1)
    for step in range(5):
        second.update(batch_for(step))
    assert changed(snapshot(first), snapshot(second)) == set()


def test_another_seed_gives_another_agent():
    assert "/actor/shared/hidden.0.weight" in changed(snapshot(build(seed=0)), snapshot(build(seed=1)))


@every_network
@every_method
def test_loaded_agent_continues_bit_identically(network_name, method, tmp_path):
    agent = build(network_name, method, seed=1)
    for step in range(3):
        agent.update(batch_for(step))
        agent.act(batch_for(step).obs)
    torch.save(agent.state_dict(), tmp_path / "state.pt")
    fresh = build(network_name, method, seed=2)
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert changed(snapshot(agent), snapshot(fresh)) == set()
    for step in range(3, 6):
        found, expected = fresh.update(batch_for(step)), agent.update(batch_for(step))
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert torch.equal(fresh.act(batch_for(step).obs), agent.act(batch_for(step).obs))
    assert changed(snapshot(agent), snapshot(fresh)) == set()


def trained_state(network_name="multi_head", method="aligned", **options) -> dict[str, Any]:
    agent = build(network_name, method, **options)
    agent.update(batch_for())
    return copy.deepcopy(agent.state_dict())


def test_state_with_a_missing_parameter_is_refused():
    state = trained_state()
    del state["temperature"]["log_alpha"]
    with pytest.raises(ValueError, match="log_alpha"):
        build("multi_head", "aligned").load_state_dict(state)


def test_state_with_an_unexpected_parameter_is_refused():
    state = trained_state()
    state["critic"]["shared"]["extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match="extra"):
        build("multi_head", "aligned").load_state_dict(state)


def test_state_of_another_architecture_is_refused():
    with pytest.raises(ValueError, match=r"state\.actor\.shared differs between agent and state"):
        build("multi_head", "aligned").load_state_dict(trained_state("mlp"))


def test_state_of_other_widths_is_refused_and_nothing_is_loaded():
    agent = build("multi_head", "aligned")
    before = snapshot(agent)
    state = trained_state(hidden_dims=(12, 9))
    with pytest.raises(ValueError, match=r"shape \(10, 12\) here and \(9, 12\)"):
        agent.load_state_dict(state)
    assert changed(before, snapshot(agent)) == set()


@pytest.mark.parametrize("part", ["actor", "temperature", "critic/optimizer", "actor/aggregator", "generators/act"])
def test_state_with_a_missing_part_is_refused(part):
    state = trained_state()
    *parents, last = part.split("/")
    inner = state[parents[0]] if parents else state
    del inner[last]
    with pytest.raises(ValueError, match=last):
        build("multi_head", "aligned").load_state_dict(state)


@pytest.mark.parametrize("part", ["extra", "generators/extra", "critic/extra"])
def test_state_with_an_unexpected_part_is_refused(part):
    state = trained_state()
    *parents, last = part.split("/")
    inner = state[parents[0]] if parents else state
    inner[last] = torch.zeros(1)
    with pytest.raises(ValueError, match=last):
        build("multi_head", "aligned").load_state_dict(state)


def test_state_of_another_method_is_refused():
    with pytest.raises(RuntimeError, match="task_weights"):
        build("multi_head", "pcgrad").load_state_dict(trained_state())


# --------------------------------------------------------------------------------------------- settings, construction


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


# ----------------------------------------------------------------------------------------- equality with a plain SAC


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


@every_method
def test_one_task_equals_a_plain_single_task_sac(method):
    # Both work in float32 with other orders of summation. Adam at 3e-3 moves a weight by up to 0.03 in ten updates;
    # what rounding leaves stays below 1e-5. Every method is the identity for one task.
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
