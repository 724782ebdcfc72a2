"""Numbers that are not finite: named, and never learned from."""

from typing import Any

import pytest
import torch

from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import names
from mtrl.gradients import losses_at
from mtrl.seeding import copy_generator
from tests.agents.small_agent import (
    BATCH,
    NUM_TASKS,
    OBS_DIM,
    batch_for,
    build,
    changed,
    every_method,
    every_network,
    flatten,
    moments,
    parameters,
    snapshot,
)
from tests.aggregators.doubles import LossShare


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


@every_method
def test_a_gradient_that_is_not_finite_where_all_losses_are_is_flagged(monkeypatch, method):
    critic_loss = MTSAC._critic_loss

    def with_a_root_of_zero(self, shared, private, inputs, /):
        loss, metrics = critic_loss(self, shared, private, inputs)
        return loss + (0 * shared["0.hidden.0.bias"]).abs().sqrt().sum(), metrics  # 0, whose derivative is 0 / 0

    agent = build(method=method)
    agent.update(batch_for(0))
    before = learned(agent)
    monkeypatch.setattr(MTSAC, "_critic_loss", with_a_root_of_zero)
    metrics = agent.update(batch_for(1))
    assert metrics["critic_loss"].isfinite().all()
    assert metrics["critic_nonfinite"].all()
    assert changed(before, learned(agent)) == set()


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
    assert not any(state.any() for state in moments(agent))


def spoil_noise(monkeypatch, task: int) -> None:
    """Make the actor's loss of a task not a number; the critic's is one."""
    inputs = MTSAC._actor_inputs

    def spoilt(self, batch, generator):
        found = inputs(self, batch, generator)
        found.noise[task] = torch.inf
        return found

    monkeypatch.setattr(MTSAC, "_actor_inputs", spoilt)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("method", names())
def test_an_actor_that_is_not_finite_takes_the_critics_step_back(monkeypatch, method, is_first):
    agent = build("multi_head", method)
    if not is_first:
        agent.update(batch_for(0))
    before = learned(agent)
    with monkeypatch.context() as patch:
        spoil_noise(patch, task=2)
        metrics = agent.update(batch_for(1))
    assert metrics["actor_nonfinite"].tolist() == [False, False, True]
    assert not metrics["critic_nonfinite"].any()
    assert changed(before, learned(agent)) == set()
    agent.update(batch_for(2))
    assert changed(before, learned(agent))


@every_network
@every_method
def test_the_state_before_an_update_that_was_not_finite_is_whole(monkeypatch, network_name, method):
    agent = build(network_name, method)
    agent.update(batch_for(0))
    before, streams = snapshot(agent), [stream.get_state() for stream in agent.streams()]
    spoil_noise(monkeypatch, task=0)
    agent.update(batch_for(1))
    assert changed(before, flatten(agent.state_with_streams(streams))) == set()
    assert changed(before, snapshot(agent)) >= {"/generators/update"}


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
