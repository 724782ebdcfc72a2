"""Observations are shifted and scaled by the first batch's statistics, and by nothing else."""

import copy
import math

import pytest
import torch

from mtrl.agents.mtsac import MTSAC
from mtrl.agents.standardizer import Standardizer
from tests.agents.small_agent import CPU, OBS_DIM, batch_for, build, changed, every_network, parameters, snapshot

FIRST = torch.tensor([[[1.0, 5.0], [3.0, 5.0]], [[5.0, 5.0], [7.0, 5.0]]])
"""Two tasks, two rows, two features."""


def fitted(min_std: float = 0.5) -> Standardizer:
    standardizer = Standardizer(2, min_std, CPU)
    standardizer.fit_once(FIRST)
    return standardizer


def test_statistics_are_those_of_all_tasks_together():
    # Feature 0: mean (1 + 3 + 5 + 7) / 4 = 4, variance (9 + 1 + 1 + 9) / 4 = 5. Feature 1 is constant: 5, floor 0.5.
    found = fitted()(torch.tensor([4 + 2 * math.sqrt(5), 6.0]))
    torch.testing.assert_close(found, torch.tensor([2.0, (6 - 5) / 0.5]))


def test_later_batches_change_nothing():
    standardizer = fitted()
    before = standardizer(FIRST)
    standardizer.fit_once(100 * FIRST)
    assert torch.equal(standardizer(FIRST), before)


def test_no_floor_means_no_change():
    standardizer = Standardizer(2, None, CPU)
    standardizer.fit_once(FIRST)
    assert torch.equal(standardizer(FIRST), FIRST)


def test_a_feature_that_is_not_finite_stays_as_it_is():
    standardizer = Standardizer(2, 0.5, CPU)
    standardizer.fit_once(torch.tensor([[[math.nan, 5.0], [3.0, 7.0]]]))
    torch.testing.assert_close(standardizer(torch.tensor([3.0, 8.0])), torch.tensor([3.0, (8 - 6) / 1.0]))


def test_a_restored_standardizer_keeps_its_statistics():
    restored = Standardizer(2, 0.5, CPU)
    restored.load_state_dict(fitted().state_dict())
    restored.fit_once(100 * FIRST)
    assert torch.equal(restored(FIRST), fitted()(FIRST))


@pytest.mark.parametrize("floor", [0.0, -1.0, float("inf"), float("nan")])
def test_a_floor_that_is_not_positive_and_finite_is_refused(floor):
    with pytest.raises(ValueError, match=rf"min_obs_std must be positive and finite, or None, got {floor}"):
        MTSAC.Config(min_obs_std=floor)


@every_network
def test_the_agent_learns_and_acts_as_on_standardised_observations(network_name):
    batches = [batch_for(seed) for seed in range(3)]
    batches = [b._replace(obs=3 * b.obs + 1, next_obs=3 * b.next_obs + 1) for b in batches]
    outside = Standardizer(OBS_DIM, 0.1, CPU)
    outside.fit_once(batches[0].obs)
    inside, plain = build(network_name, "aligned", min_obs_std=0.1), build(network_name, "aligned")
    for batch in batches:
        standardised = batch._replace(obs=outside(batch.obs), next_obs=outside(batch.next_obs))
        inside.update(batch)
        plain.update(standardised)
        found, expected = inside.diagnose(batch), plain.diagnose(standardised)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert changed(parameters(inside), parameters(plain)) == set()
    obs = batches[1].obs
    assert torch.equal(inside.act_deterministic(obs), plain.act_deterministic(outside(obs)))
    assert torch.equal(inside.act(obs), plain.act(outside(obs)))


def test_a_restored_agent_continues_with_its_statistics():
    agent, restored = build(min_obs_std=0.1), build(min_obs_std=0.1, seed=1)
    agent.update(batch_for(0))
    restored.load_state_dict(copy.deepcopy(agent.state_dict()))
    for each in (agent, restored):
        each.update(batch_for(1))
    assert changed(snapshot(agent), snapshot(restored)) == set()
