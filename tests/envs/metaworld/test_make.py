"""Benchmarks by name, with real environments in real workers."""

import os
import signal
from contextlib import closing

import numpy as np
import pytest

from mtrl import envs
from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.envs.metaworld.tasks import MT10
from mtrl.envs.workers import WorkerVectorEnv

pytestmark = pytest.mark.mujoco


def test_mt10_has_its_sizes_and_steps():
    with closing(envs.make("mt10", workers=2)) as env:
        spec = env.spec
        assert spec.task_names == MT10
        assert (spec.obs_dim, spec.action_dim, spec.max_episode_steps, spec.num_goals) == (39, 4, 500, 50)
        assert env.reset().shape == (10, 1, 39)
        step = env.step(np.zeros((10, 1, 4)))
        assert step.valid.all()
        assert not step.truncated.any()


def test_workers_resume_bit_for_bit_in_mid_episode():
    name = "mt10:reach-v3,pick-place-v3,window-close-v3"
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 3, 1, 4)).astype(np.float32)
    with closing(envs.make(name, workers=2)) as env, closing(envs.make(name, workers=1, seed=5)) as other:
        env.reset()
        for action in actions[:4]:
            env.step(action)
        other.set_state(env.get_state())
        for action in actions[4:]:
            expected, found = env.step(action), other.step(action)
            for field, array in expected._asdict().items():
                np.testing.assert_array_equal(getattr(found, field), array, err_msg=field)


def test_a_subset_keeps_order_and_goals_of_its_benchmark():
    names = ("push-v3", "reach-v3")
    goals = goal_vectors("mt10", names, 4)
    with closing(envs.make("mt10:push-v3,reach-v3", goal_seed=4, envs_per_task=2)) as env:
        assert env.spec.task_names == names
        obs = env.reset(np.array([[0, 1], [2, 3]]))
    for task, name in enumerate(names):
        single = SawyerEnv(name, goals[name])
        for copy in range(2):
            np.testing.assert_array_equal(obs[task, copy], single.reset(2 * task + copy))


@pytest.mark.parametrize("engine", ["native", "stock"])
def test_a_killed_worker_is_replaced_and_disturbs_no_other(engine):
    name = "mt10:reach-v3,drawer-close-v3"  # with two workers, one for each
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 2, 1, 4)).astype(np.float32)
    with closing(envs.make(name, workers=2, engine=engine)) as env, closing(envs.make(name, engine=engine)) as healthy:
        assert isinstance(env, WorkerVectorEnv)
        for each in (env, healthy):
            each.reset()
            for action in actions[:4]:
                each.step(action)
        os.kill(env.process_ids[1], signal.SIGKILL)
        broken, *found = [env.step(action) for action in actions[4:]]
        expected = [healthy.step(action) for action in actions[4:]]
        for one, other in zip([broken, *found], expected, strict=True):
            for field, array in one._asdict().items():
                np.testing.assert_array_equal(array[0], getattr(other, field)[0], err_msg=field)
        np.testing.assert_array_equal(broken.valid, [[True], [False]])
        np.testing.assert_array_equal(broken.truncated, [[False], [True]])
        np.testing.assert_array_equal(broken.obs[1], healthy.reset(found[0].goal)[1])
        for action, one in zip(actions[5:], found, strict=True):
            other = healthy.step(action)
            for field, array in one._asdict().items():
                np.testing.assert_array_equal(array[1], getattr(other, field)[1], err_msg=field)
