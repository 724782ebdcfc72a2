"""Values that no reward can justify: what the bound is, and who hears of it."""

import math

import numpy as np

from mtrl.agents.mtsac import MTSAC
from mtrl.divergence import ValueWatch
from mtrl.signals import StopRequest
from tests.small_runs import build

TASKS = ("north", "east")


def test_twice_what_rewards_and_entropy_add_up_to_is_the_bound(caplog):
    # Rewards up to 3 and a bonus of 2, discounted by 0.75: at most (3 + 2) / 0.25 = 20; the slack makes it 40.
    watch = ValueWatch(TASKS, gamma=0.75)
    reward, bonus = np.array([3.0, 3.0]), np.array([-2.0, 2.0])
    watch.look(np.array([39.9, -39.9]), reward, bonus, now=0.0)
    assert caplog.messages == []
    watch.look(np.array([0.0, -40.1]), reward, bonus, now=1.0)
    assert caplog.messages == [
        "mean Q beyond what rewards and entropy can add up to, the critics diverge: east -40.1 (at most 20)"
    ]
    watch.look(np.array([40.1, 0.0]), reward, bonus, now=2.0)
    assert "north 40.1 (at most 20)" in caplog.messages[1]


def test_a_task_is_warned_of_once_a_minute(caplog):
    watch = ValueWatch(TASKS, gamma=0.5)
    for now in (0.0, 30.0, 59.0, 60.0, 119.0, 120.0):
        watch.look(np.array([1e9, 0.0]), np.ones(2), np.zeros(2), now=now)
    assert len(caplog.messages) == 3


def test_the_bonus_of_earlier_records_counts(caplog):
    # Critics still hold what entropy was worth before the temperature fell.
    watch = ValueWatch(TASKS, gamma=0.5)
    watch.look(np.zeros(2), np.ones(2), np.full(2, 9.0), now=0.0)
    watch.look(np.full(2, 39.0), np.ones(2), np.full(2, math.nan), now=1.0)
    assert caplog.messages == []


def test_without_discounting_there_is_no_bound(caplog):
    ValueWatch(TASKS, gamma=1.0).look(np.full(2, 1e30), np.ones(2), np.ones(2), now=0.0)
    assert caplog.messages == []


def run_with_scaled_critics(run_dir, scale):
    trainer = build(run_dir, total_steps=200, eval_every=0)
    for _ in range(40):
        trainer._vector_step()
        for _ in range(trainer._due_updates()):
            trainer.learner.update()
    assert isinstance(trainer.agent, MTSAC)
    for name, leaf in trainer.agent.critic.shared.items():
        if "output" in name:
            leaf.mul_(scale)
    trainer.run(StopRequest())
    trainer.close()
    return trainer


def test_critics_whose_output_is_scaled_are_warned_of_in_a_run(tmp_path, caplog):
    run_with_scaled_critics(tmp_path / "sound", 1.0)
    assert caplog.messages == []
    trainer = run_with_scaled_critics(tmp_path / "scaled", 1e7)
    assert "mean Q beyond" in caplog.messages[0]
    assert "reach-east" in caplog.messages[0]
    assert "reach-west" in caplog.messages[0]
    assert (trainer.replay.largest_reward > 0).all()
