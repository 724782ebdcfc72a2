"""One task: identical to Meta-World's own environment, resumable, and honest about broken simulations."""

import metaworld
import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.envs.metaworld.tasks import MAX_EPISODE_STEPS, MT10, MT50, OBS_DIM

pytestmark = [
    pytest.mark.mujoco,
    pytest.mark.filterwarnings("ignore:Constant.* may be too high:UserWarning"),  # from Meta-World's policies
]

GOALS = goal_vectors("mt50", MT50, 0)

TASKS_OF_ALL_KINDS = ("pick-place-v3", "window-close-v3", "sweep-into-v3", "basketball-v3", "door-lock-v3")
"""Live pads in the reward, stale first observation, largest effect of frozen pads, live target, live object."""


def make_stock(name, goal):
    """Build the environment as Meta-World's benchmarks do, with one of its tasks."""
    env = ALL_V3_ENVIRONMENTS[name](reward_function_version="v2")
    data = {"rand_vec": GOALS[name][goal], "env_cls": type(env), "partially_observable": False}
    env.set_task(metaworld._encode_task(name, data))
    return env


def noisy_actions(name):
    """Return a scripted policy with noise: contacts, grasps and successes happen."""
    policy = ENV_POLICY_MAP[name]()
    generator = np.random.default_rng(0)

    def act(obs):
        action = policy.get_action(obs) + generator.normal(0, 0.1, 4)
        return np.clip(action, -1, 1).astype(np.float32)

    return act


def assert_equal_transition(ours, stock):
    obs, reward, terminated, truncated, info = stock
    np.testing.assert_array_equal(ours.obs, obs.astype(np.float32))
    assert np.float32(ours.reward) == np.float32(reward)
    assert (ours.terminated, ours.truncated) == (terminated, truncated)
    assert ours.success == bool(info["success"])
    assert ours.valid


def assert_equals_stock(name, num_steps):
    ours, stock, act = SawyerEnv(name, GOALS[name]), make_stock(name, 3), noisy_actions(name)
    obs, _ = stock.reset()
    np.testing.assert_array_equal(ours.reset(3), obs.astype(np.float32))
    for _ in range(num_steps):
        action = act(obs)
        obs, *rest = stock.step(action)
        transition = ours.step(action)
        assert_equal_transition(transition, (obs, *rest))
        if transition.truncated:
            obs, _ = stock.reset()
            np.testing.assert_array_equal(ours.reset(3), obs.astype(np.float32))


def assert_resumes(name, num_steps):
    env, other, act = SawyerEnv(name, GOALS[name]), SawyerEnv(name, GOALS[name]), noisy_actions(name)
    obs = env.reset(3)
    for _ in range(40):
        obs = env.step(act(obs)).obs
    other.reset(11)
    other.step(np.ones(4))
    other.set_state(env.get_state())
    for _ in range(num_steps):
        action = act(obs)
        expected, found = env.step(action), other.step(action)
        np.testing.assert_array_equal(found.obs, expected.obs)
        assert found[1:] == expected[1:]
        obs = expected.obs


@pytest.mark.parametrize("name", TASKS_OF_ALL_KINDS)
def test_two_episodes_equal_those_of_the_stock_environment(name):
    assert_equals_stock(name, MAX_EPISODE_STEPS + 20)


@pytest.mark.parametrize("name", TASKS_OF_ALL_KINDS)
def test_a_restored_environment_continues_bit_for_bit_in_mid_episode(name):
    assert_resumes(name, 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", MT50)
def test_every_task_equals_the_stock_environment(name):
    assert_equals_stock(name, MAX_EPISODE_STEPS + 50)


@pytest.mark.slow
@pytest.mark.parametrize("name", MT50)
def test_every_task_resumes_bit_for_bit(name):
    assert_resumes(name, 100)


@pytest.mark.parametrize("name", MT10[:2])
def test_another_goal_gives_the_episode_of_a_fresh_stock_environment(name):
    ours = SawyerEnv(name, GOALS[name])
    ours.reset(3)
    ours.step(np.ones(4))
    obs, _ = make_stock(name, 7).reset()
    np.testing.assert_array_equal(ours.reset(7), obs.astype(np.float32))


def test_the_goal_is_visible():
    env = SawyerEnv("reach-v3", GOALS["reach-v3"])
    obs = env.reset(5)
    assert obs.shape == (OBS_DIM,)
    np.testing.assert_array_equal(obs[-3:], GOALS["reach-v3"][5][-3:].astype(np.float32))
    np.testing.assert_array_equal(env.step(np.zeros(4)).obs[-3:], obs[-3:])


@pytest.mark.parametrize("speed", [1e30, np.nan])
def test_an_exploding_simulation_is_invalid_and_the_next_episode_is_clean(speed, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    env = SawyerEnv("push-v3", GOALS["push-v3"])
    env.reset(0)
    before = env.step(np.zeros(4)).obs
    env.env.data.qvel[:] = speed
    transition = env.step(np.zeros(4))
    assert "unstable" in caplog.text
    assert not transition.valid
    assert transition.truncated
    assert transition.reward == 0
    np.testing.assert_array_equal(transition.obs, before)
    np.testing.assert_array_equal(env.reset(0), SawyerEnv("push-v3", GOALS["push-v3"]).reset(0))
    assert env.step(np.zeros(4)).valid
    assert not list(tmp_path.iterdir())  # MuJoCo would write a log file here


def test_the_state_holds_plain_types_and_arrays_only():
    env = SawyerEnv("bin-picking-v3", GOALS["bin-picking-v3"])
    env.reset(0)

    def check(value):
        if isinstance(value, dict):
            for name, item in value.items():
                assert type(name) is str
                check(item)
        else:
            assert type(value) in {int, float, bool, str, type(None), np.ndarray}

    check(env.get_state())
