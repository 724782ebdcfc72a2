"""Compiled observations and rewards equal Meta-World's own, bit for bit where it matters."""

import datetime as dt
from contextlib import closing

import numpy as np
import pytest
from metaworld.policies import ENV_POLICY_MAP

from mtrl import checkpoint, envs
from mtrl.envs.metaworld import kernels
from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.envs.metaworld.kernels.compile import Entry
from mtrl.envs.metaworld.native import NativeSawyerEnv
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.envs.metaworld.tasks import MAX_EPISODE_STEPS, MT50
from scripts.compare_engines import KINDS, compare_vector

pytestmark = [
    pytest.mark.mujoco,
    pytest.mark.filterwarnings("ignore:Constant.* may be too high:UserWarning"),  # from Meta-World's policies
    pytest.mark.timeout(300),  # the first run compiles
]

GOALS = goal_vectors("mt50", MT50, 0)

OF_ALL_KINDS = ("push-v3", "bin-picking-v3", "stick-push-v3")
"""Rewards in float32 where the grasp is firm; a live target and state that steps change; success by contacts."""

REWARD_TOLERANCE = 1e-12

TASKS_A_DAY, DAYS = 3, 17
"""Tasks take their turns, and are through after so many days."""


def actions_of(name, kind, seed):
    """Return what acts on the observation that stock shows."""
    policy, generator = ENV_POLICY_MAP[name](), np.random.default_rng(seed)

    def act(obs):
        if kind == "random":
            return generator.uniform(-1, 1, 4).astype(np.float32)
        if kind == "saturating":
            return generator.choice([-2.0, -1.0, 1.0, 2.0], 4).astype(np.float32)
        noise = generator.normal(0, 0.1, 4) if kind == "noisy" else 0
        return np.clip(policy.get_action(obs) + noise, -1, 1).astype(np.float32)

    return act


def assert_equals_stock(name, episodes, num_steps):
    native, stock = NativeSawyerEnv(name, GOALS[name]), SawyerEnv(name, GOALS[name])
    solved = 0
    for goal, kind in episodes:
        np.testing.assert_array_equal(native.reset(goal), stock.reset(goal))
        obs = np.concatenate([np.tile(stock.env._prev_obs, 2), stock.env._get_pos_goal()])
        act = actions_of(name, kind, goal)
        for _ in range(num_steps):
            action = act(obs)
            found, expected = native.step(action), stock.step(action)
            obs = stock.env._last_stable_obs
            np.testing.assert_array_equal(native._frame.obs, obs)
            np.testing.assert_array_equal(native.stock.env.data.qpos, stock.env.data.qpos)
            np.testing.assert_array_equal(native.stock.env.data.qvel, stock.env.data.qvel)
            assert abs(found.reward - expected.reward) <= REWARD_TOLERANCE
            assert np.float32(found.reward) == np.float32(expected.reward)
            assert (found.truncated, found.success, found.valid) == (expected.truncated, expected.success, True)
            solved += found.success
    return solved


@pytest.mark.parametrize("name", OF_ALL_KINDS)
def test_steps_and_resets_equal_stock(name):
    # The second goal comes back: its reset is restored instead of simulated.
    assert assert_equals_stock(name, [(3, "policy"), (7, "random"), (3, "noisy"), (3, "saturating")], 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", MT50)
def test_every_task_equals_stock_over_whole_episodes(name):
    episodes = [(3, "random"), (7, "policy"), (3, "policy"), (11, "saturating"), (7, "noisy"), (0, "policy")]
    assert assert_equals_stock(name, episodes, MAX_EPISODE_STEPS)


@pytest.mark.parametrize("name", OF_ALL_KINDS)
def test_a_state_continues_in_an_environment_that_was_never_reset(name):
    env, act = NativeSawyerEnv(name, GOALS[name]), actions_of(name, "policy", 0)
    env.reset(3)
    for _ in range(40):
        env.step(act(env._frame.obs))
    state = env.get_state()
    others = NativeSawyerEnv(name, GOALS[name]), SawyerEnv(name, GOALS[name])
    for other in others:
        other.set_state(state)
    for _ in range(60):
        action = act(env._frame.obs)
        expected = env.step(action)
        for other in others:
            found = other.step(action)
            np.testing.assert_array_equal(found.obs, expected.obs)
            assert np.float32(found.reward) == np.float32(expected.reward)
            assert found.success == expected.success


@pytest.mark.parametrize("engine", ["native", pytest.param("stock", marks=pytest.mark.slow)])
def test_every_task_continues_from_a_checkpoint(engine, tmp_path):
    action = np.random.default_rng(0).uniform(-1, 1, (3, len(MT50), 1, 4)).astype(np.float32)
    with closing(envs.make("mt50", workers=1, engine=engine)) as env:
        env.reset()
        env.step(action[0])
        folder = checkpoint.save(tmp_path, 1, {"env": env.get_state()})
        expected = [[part.copy() for part in env.step(each)] for each in action[1:]]
    with closing(envs.make("mt50", workers=2, engine="native")) as other:
        other.set_state(checkpoint.load(folder, "env"))
        for each, parts in zip(action[1:], expected, strict=True):
            for found, part in zip(other.step(each), parts, strict=True):
                np.testing.assert_array_equal(found, part)
        assert other.worker_restarts == 0


def test_every_task_has_its_kernel():
    for name in MT50:
        module = kernels.load(name)
        assert isinstance(module.step, Entry)
        assert (module.__doc__ or "").startswith(f"{name}: ")


def test_engines_give_the_same_steps_through_the_workers():
    name = "mt10:push-v3,reach-v3"
    generator = np.random.default_rng(0)
    with (
        closing(envs.make(name, workers=1, engine="stock")) as stock,
        closing(envs.make(name, workers=2, engine="native")) as native,
    ):
        np.testing.assert_array_equal(native.reset(), stock.reset())
        for _ in range(30):
            action = generator.uniform(-1, 1, (2, 1, 4)).astype(np.float32)
            for found, expected in zip(native.step(action), stock.step(action), strict=True):
                np.testing.assert_array_equal(found, expected)
        native.set_state(stock.get_state())
        action = generator.uniform(-1, 1, (2, 1, 4)).astype(np.float32)
        np.testing.assert_array_equal(native.step(action).obs, stock.step(action).obs)


def tasks_of(day):
    """Return the tasks whose turn it is on a day counted from year 1, and the kind of actions for each."""
    tasks = [MT50[(TASKS_A_DAY * day + index) % len(MT50)] for index in range(TASKS_A_DAY)]
    return tasks, [[KINDS[(day // DAYS + index) % len(KINDS)]] for index in range(TASKS_A_DAY)]


def test_every_task_has_its_turn():
    days = range(739_000, 739_000 + DAYS)
    assert {task for day in days for task in tasks_of(day)[0]} == set(MT50)
    # And in a year with every kind of actions.
    turns = {(task, *kind) for day in range(739_000, 739_365) for task, kind in zip(*tasks_of(day), strict=True)}
    assert len(turns) == len(MT50) * len(KINDS)


def test_tasks_of_the_day_equal_stock_into_the_next_episode():
    today = dt.datetime.now(dt.UTC).date()
    tasks, kinds = tasks_of(today.toordinal())
    found = {}
    compare_vector(tasks, kinds, MAX_EPISODE_STEPS + 20, goal_seed=0, found=found, seed=today.toordinal())
    different = {task: one.first for task, one in found.items() if not one.is_equal}
    assert not different, f"tasks of {today} ({', '.join(tasks)} with {kinds}, seed {today.toordinal()}): {different}"
    assert [one.episodes for one in found.values()] == [2] * TASKS_A_DAY


def test_a_success_that_python_confirms_equals_stock_through_a_worker():
    found = {}
    # With these actions the thermos is at its place for ten steps before both fingers press on the stick.
    compare_vector(["stick-push-v3"], [["policy"]], 200, goal_seed=0, found=found, seed=0)
    assert found["stick-push-v3"].is_equal, found["stick-push-v3"].first
