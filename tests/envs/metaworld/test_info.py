"""What a step further tells equals stock's info, whoever steps, and telling it changes nothing."""

import copy
import itertools
from contextlib import closing

import numpy as np
import pytest

from mtrl import envs
from mtrl.envs.metaworld.native import NativeSawyerEnv
from mtrl.envs.metaworld.native_info import InformedSawyerEnv
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.envs.metaworld.tasks import INFO_NAMES, MAX_EPISODE_STEPS, MT50
from tests.envs.metaworld.test_native import GOALS, OF_ALL_KINDS, actions_of
from tests.envs.metaworld.test_sawyer import make_stock

pytestmark = [
    pytest.mark.mujoco,
    pytest.mark.filterwarnings("ignore:Constant.* may be too high:UserWarning"),  # from Meta-World's policies
    pytest.mark.timeout(300),  # the first run compiles
]


def assert_tells_what_stock_tells(name, episodes, num_steps):
    """Step with and without info, and stock, side by side; return how often something was grasped and solved."""
    informed, silent = InformedSawyerEnv(NativeSawyerEnv(name, GOALS[name])), NativeSawyerEnv(name, GOALS[name])
    seen = []
    for goal, kind in episodes:
        stock = make_stock(name, goal)
        obs, _ = stock.reset()
        informed.reset(goal)
        silent.reset(goal)
        act = actions_of(name, kind, goal)
        for _ in range(num_steps):
            action = act(obs)
            obs, _, _, truncated, expected = stock.step(action)
            found, without = informed.step(action), silent.step(action)
            assert set(expected) == set(INFO_NAMES)
            for key in INFO_NAMES:
                assert np.float64(found.info[key]) == np.float64(expected[key]), key
            np.testing.assert_array_equal(found.obs, without.obs)
            assert found[1:6] == without[1:6]
            assert found.truncated == truncated
            seen.append([float(expected[key]) for key in ("near_object", "success")])
        assert_equal_states(informed.get_state(), silent.get_state())
    return np.array(seen).max(axis=0)


def assert_equal_states(left, right):
    for key, value in left.items():
        if isinstance(value, dict):
            assert_equal_states(value, right[key])
        else:
            np.testing.assert_array_equal(value, right[key], err_msg=key)


@pytest.mark.parametrize("name", OF_ALL_KINDS)
def test_the_native_engine_tells_what_stock_tells(name):
    is_near, is_solved = assert_tells_what_stock_tells(name, [(3, "policy"), (7, "random"), (3, "noisy")], 110)
    assert is_near
    assert is_solved


@pytest.mark.slow
@pytest.mark.parametrize("name", MT50)
def test_every_task_tells_what_stock_tells_over_whole_episodes(name):
    episodes = [(3, "random"), (7, "policy"), (11, "saturating"), (7, "noisy")]
    assert assert_tells_what_stock_tells(name, episodes, MAX_EPISODE_STEPS)[1]


def test_a_restored_state_tells_the_same():
    name = "bin-picking-v3"
    env = InformedSawyerEnv(NativeSawyerEnv(name, GOALS[name]))
    other = InformedSawyerEnv(NativeSawyerEnv(name, GOALS[name]))
    env.reset(3)
    for _ in range(5):
        env.step(np.ones(4, np.float32))
    other.set_state(copy.deepcopy(env.get_state()))
    for _ in range(5):
        assert other.step(np.ones(4, np.float32)).info == env.step(np.ones(4, np.float32)).info


def test_a_broken_simulation_tells_nothing(caplog):
    for env in (
        SawyerEnv("push-v3", GOALS["push-v3"]),
        InformedSawyerEnv(NativeSawyerEnv("push-v3", GOALS["push-v3"])),
    ):
        env.reset(0)
        data = env.env.data if isinstance(env, SawyerEnv) else env._native.stock.env.data
        data.qvel[:] = np.nan
        transition = env.step(np.zeros(4, np.float32))
        assert not transition.valid
        assert not transition.info
    assert "unstable" in caplog.text


@pytest.mark.parametrize("engine", ["stock", "native"])
def test_info_arrives_through_the_workers(engine):
    name, tasks = "mt50:push-v3,reach-v3", ("push-v3", "reach-v3")
    generator = np.random.default_rng(0)
    with closing(envs.make(name, workers=1, engine=engine, info=True, envs_per_task=2)) as env:
        assert env.spec.info_names == INFO_NAMES
        goal = np.array([[0, 1], [2, 3]])
        env.reset(goal)
        stocks = [[make_stock(task, index) for index in row] for task, row in zip(tasks, goal, strict=True)]
        for stock in itertools.chain(*stocks):
            stock.reset()
        for _ in range(3):
            action = generator.uniform(-1, 1, (2, 2, 4)).astype(np.float32)
            step = env.step(action)
            assert step.info.shape == (2, 2, 7)
            assert step.info.dtype == np.float64
            for task, copies in enumerate(stocks):
                for copy_, stock in enumerate(copies):
                    info = stock.step(action[task, copy_])[4]
                    np.testing.assert_array_equal(step.info[task, copy_], [info[key] for key in INFO_NAMES])


def test_nothing_is_told_by_default():
    with closing(envs.make("mt10:reach-v3", workers=1)) as env:
        assert env.spec.info_names == ()
        env.reset()
        assert env.step(np.zeros((1, 1, 4))).info.shape == (1, 1, 0)
