"""Normalised rewards: the published formula, and that a resumed run goes on with it exactly."""

import math

import numpy as np
import pytest
import torch

from mtrl.checkpoint import latest, load
from mtrl.interfaces import EnvSpec, Step
from mtrl.replay import Config, make_replay
from mtrl.reward_normalizer import RewardNormalizer
from mtrl.train import main
from tests.small_runs import assert_same_state
from tests.test_group import as_before

SPEC = EnvSpec(
    task_names=("a", "b"), envs_per_task=1, obs_dim=1, action_dim=1, max_episode_steps=9, num_goals=1, info_names=()
)
YES = np.ones((2, 1), bool)


def rewards(*values: float) -> np.ndarray:
    return np.array(values, np.float64)[:, None]


def test_two_rewards_by_hand():
    normalize = RewardNormalizer(SPEC)
    # m = 0.001 * 2 = 0.002; v = 0.999 + 0.001 * 1.998^2 = 1.002992004
    assert normalize(rewards(2, 0), YES)[:, 0] == pytest.approx([2 / math.sqrt(1.002992004), 0], abs=1e-7)
    # m = 0.999 * 0.002 + 0.001 * 10 = 0.011998; v = 0.999 * 1.002992004 + 0.001 * 9.988002^2 = 1.101749...
    variance = 0.999 * 1.002992004 + 0.001 * 9.988002**2
    # the other task: m = 0.01, v = 0.999^2 + 0.001 * 9.99^2
    expected = [10 / math.sqrt(variance), 10 / math.sqrt(0.998001 + 0.001 * 9.99**2)]
    assert normalize(rewards(10, 10), YES)[:, 0] == pytest.approx(expected, abs=1e-6)


def test_a_reward_that_is_not_valid_changes_no_estimate():
    normalize, other = RewardNormalizer(SPEC), RewardNormalizer(SPEC)
    normalize(rewards(100, 3), np.array([[False], [True]]))
    other(rewards(0, 3), np.array([[False], [True]]))
    assert_same_state(normalize.state_dict(), other.state_dict())


def step(reward: float) -> Step:
    zeros, no = np.zeros((2, 1, 1), np.float32), np.zeros((2, 1), bool)
    return Step(zeros, zeros, rewards(reward, reward), no, no, no, np.zeros((2, 1), np.int64), YES, np.zeros((2, 1, 0)))


def test_the_replay_stores_normalised_rewards_and_goes_on_with_their_estimate():
    config = Config(capacity=4, reward_normalization="running")
    whole, part, rest = (make_replay(config, SPEC, torch.device("cpu"), seed=0) for _ in range(3))
    action = np.zeros((2, 1, 1), np.float32)
    for replay in (whole, part):
        replay.add(step(0).obs, action, step(2))
    assert part.sample(3).reward == pytest.approx(np.full((2, 3), 2 / math.sqrt(1.002992004)), abs=1e-6)
    rest.load_state_dict(part.state_dict())
    for task, rows in enumerate(part.live()):
        rest.write(task, rows, memoryview(bytearray(b"".join(map(bytes, part.read(task, rows))))))
    for replay in (whole, rest):
        replay.add(step(0).obs, action, step(10))
    whole.sample(3)  # as part did
    assert torch.equal(whole.sample(9).reward, rest.sample(9).reward)
    plain = make_replay(Config(capacity=4), SPEC, torch.device("cpu"), seed=0)
    plain.add(step(0).obs, action, step(2))
    assert plain.sample(3).reward.unique().tolist() == [2.0]


def test_a_run_that_is_resumed_equals_one_that_never_stopped(tmp_path):
    flags = [
        *("--env", "toy", "--envs-per-task", "2", "--warmup-steps", "20", "--device", "cpu", "--eval-every", "0"),
        *("--network.hidden-dims", "8", "--agent.batch-size", "8", "--replay.reward-normalization", "running"),
        *("--agent.temperatures", "shared", "--network.task-input", "none", "--log-every", "400"),
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with as_before():
        assert main([*flags, "--total-steps", "400", "--run-dir", str(whole)]) == 0
        assert main([*flags, "--total-steps", "200", "--run-dir", str(parts)]) == 0
        assert main(["--resume", str(parts), "--total-steps", "400"]) == 0
    found, expected = (latest(run / "checkpoints") for run in (parts, whole))
    assert found
    assert expected
    assert load(found, "replay")["reward"]["mean"].any()
    for name in ("agent", "replay", "env"):
        assert_same_state(load(found, name), load(expected, name))


def test_a_state_of_other_environments_is_refused():
    other = RewardNormalizer(EnvSpec(**{**vars(SPEC), "envs_per_task": 2}))
    with pytest.raises(ValueError, match="do not fit"):
        other.load_state_dict(RewardNormalizer(SPEC).state_dict())
