"""Diagnosis changes nothing; seeds and saved states determine everything."""

import copy
from typing import Any

import pytest
import torch

from mtrl.aggregators import make
from mtrl.aggregators.system import GradientSystem
from tests.agents.small_agent import (
    NUM_TASKS,
    batch_for,
    build,
    changed,
    every_method,
    every_network,
    snapshot,
)
from tests.aggregators.doubles import LossShare

# ---- diagnose


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
        system = GradientSystem(num_tasks=2, losses=torch.ones(2), gramian=torch.eye(2).double(), rows=(torch.eye(2),))
        aggregator = make(method)
        aggregator.setup(2, [torch.Size([2])], torch.device("cpu"))
        replaces_the_rows = aggregator.aggregate(system).mixing is not None
        assert (f"condition_number_after/{component}" in metrics) == replaces_the_rows


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


# ---- seeds, state dicts


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
