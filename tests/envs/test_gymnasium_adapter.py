"""The adapter to Gymnasium: SAME_STEP, flat rows ordered by task."""

import dataclasses

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import ClipAction, RecordEpisodeStatistics

from mtrl.envs.gymnasium_adapter import as_gymnasium
from tests.envs.harness import make_spec, vector_env

TASK = [0, 0, 1, 1, 2, 2]
STAY = np.zeros((6, 1), np.float32)


def test_spaces_and_metadata_say_what_reset_and_step_return():
    with vector_env() as inner:
        env = as_gymnasium(inner)
        assert isinstance(env, VectorEnv)
        assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        assert env.num_envs == 6
        obs, info = env.reset()
        assert env.observation_space.contains(obs)
        assert obs[0] in env.single_observation_space
        np.testing.assert_array_equal(info["task"], TASK)
        env.action_space.seed(0)
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs)
        assert reward.shape == terminated.shape == truncated.shape == (6,)


def test_final_obs_is_a_plain_array_and_marked_where_episodes_ended():
    with vector_env() as inner:
        env = as_gymnasium(inner)
        env.reset()
        for time in (1, 2, 3):
            obs, _, _, truncated, info = env.step(STAY)
            np.testing.assert_array_equal(info["final_obs"][:, 3], time)
            np.testing.assert_array_equal(info["success"], time == 2)
            np.testing.assert_array_equal(info["_final_obs"], truncated)
            np.testing.assert_array_equal(obs[:, 3], time % 3)
            np.testing.assert_array_equal(info["task"], TASK)


def test_goals_are_chosen_by_option_and_a_seed_is_warned_about():
    with vector_env() as inner:
        env = as_gymnasium(inner)
        obs, _ = env.reset(options={"goal": np.arange(6).reshape(3, 2)})
        np.testing.assert_array_equal(obs[:, 2], np.arange(6))
        obs, _ = env.reset(options={"goal": [[5, 4], [3, 2], [1, 0]]})
        np.testing.assert_array_equal(obs[:, 2], np.arange(6)[::-1])
        with pytest.warns(UserWarning, match="no effect"):
            env.reset(seed=3)


def test_gymnasium_wrappers_accept_it():
    with vector_env() as inner:
        env = RecordEpisodeStatistics(ClipAction(as_gymnasium(inner)))
        env.reset()
        infos = [env.step(STAY)[4] for _ in range(3)]
        np.testing.assert_array_equal(infos[2]["episode"]["l"], 3)
        np.testing.assert_array_equal(
            infos[2]["episode"]["r"], [6, 6, 306, 306, 606, 606]
        )  # 1 + 2 + 3 + 3 * 100 * task
        env.close()


def test_close_closes_the_environment_beneath():
    with vector_env() as inner:
        as_gymnasium(inner).close()
        with pytest.raises(RuntimeError, match="closed"):
            inner.reset()


def test_further_numbers_are_in_the_infos_under_their_names_and_masked():
    spec = dataclasses.replace(make_spec(), info_names=("third", "success"))
    with vector_env(spec=spec) as inner:
        env = as_gymnasium(inner)
        env.reset()
        action = STAY.copy()
        action[2] = 1  # an unstable simulation tells nothing
        info = env.step(action)[4]
        is_valid = [True, True, False, True, True, True]
        np.testing.assert_array_equal(info["third"], np.where(is_valid, 1 / 3, 0))
        np.testing.assert_array_equal(info["_third"], is_valid)
        assert info["success"].dtype == np.bool_


def test_pictures_are_ordered_by_task_and_only_made_when_asked_for():
    spec = dataclasses.replace(make_spec(), cameras=("front", "behind"), steps_per_second=20)
    with vector_env(spec=spec) as inner:
        env = as_gymnasium(inner, render_mode="rgb_array", camera="behind", width=4, height=2)
        assert (env.render_mode, env.metadata["render_modes"], env.metadata["render_fps"]) == (
            "rgb_array",
            ["rgb_array"],
            20,
        )
        env.reset()
        pictures = env.render()
        assert isinstance(pictures, tuple)
        assert [picture.shape for picture in pictures] == [(2, 4, 3)] * 6
        assert [tuple(picture[0, 0]) for picture in pictures] == [(task, row % 2, 100) for row, task in enumerate(TASK)]
        assert as_gymnasium(inner).render() is None


def test_modes_and_cameras_that_do_not_exist_are_refused():
    spec = dataclasses.replace(make_spec(), cameras=("front", "behind"))
    with vector_env(spec=spec) as visible, vector_env() as invisible:
        with pytest.raises(ValueError, match=r"unknown camera 'fornt'\. Did you mean 'front'"):
            as_gymnasium(visible, camera="fornt")
        with pytest.raises(NotImplementedError, match="nothing to see"):
            as_gymnasium(invisible, render_mode="rgb_array")
