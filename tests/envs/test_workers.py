"""The vector environment over worker processes: what a step means, and that results do not depend on the workers."""

import dataclasses
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mtrl.envs.workers import RenderingError, WorkerError, WorkerVectorEnv
from mtrl.machine import usable_cores
from tests.envs.fakes import NUM_GOALS, inspecting, raising, unseen
from tests.envs.harness import TASK_NAMES, make_spec, vector_env

STAY = np.zeros((3, 2, 1), np.float32)
TASK, ENV, GOAL, TIME = range(4)


def as_tensors(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state as a checkpoint would load it: through torch, arrays as tensors, nothing but plain types."""

    def convert(value: Any, array_type: type, change: Callable[[Any], Any]) -> Any:
        if isinstance(value, array_type):
            return change(value)
        if isinstance(value, dict):
            return {key: convert(item, array_type, change) for key, item in value.items()}
        if isinstance(value, list):
            return [convert(item, array_type, change) for item in value]
        assert value is None or type(value) in {int, float, bool, str}
        return value

    file = io.BytesIO()
    torch.save(convert(state, np.ndarray, torch.from_numpy), file)
    file.seek(0)
    return convert(torch.load(file, weights_only=True), torch.Tensor, lambda tensor: tensor.numpy())


def rollout(env, num_steps):
    generator = np.random.default_rng(0)
    return [env.step(generator.uniform(-0.9, 0.9, STAY.shape).astype(np.float32)) for _ in range(num_steps)]


def assert_equal_steps(left, right):
    for ours, theirs in zip(left, right, strict=True):
        for name, array in ours._asdict().items():
            np.testing.assert_array_equal(array, getattr(theirs, name), err_msg=name)


def test_rows_are_task_then_env_whatever_the_worker():
    with vector_env(workers=2) as env:
        obs = env.reset()
        assert obs.shape == (3, 2, 4)
        assert obs.dtype == np.float32
        np.testing.assert_array_equal(obs[..., TASK], [[0, 0], [1, 1], [2, 2]])
        np.testing.assert_array_equal(obs[..., ENV], [[0, 1]] * 3)
        np.testing.assert_array_equal(env.step(STAY).reward, [[1, 1], [101, 101], [201, 201]])


def test_final_obs_is_the_true_successor_and_obs_the_next_to_act_on():
    with vector_env() as env:
        first = env.reset()
        steps = [env.step(STAY) for _ in range(4)]
        for time, step in enumerate(steps[:3], start=1):
            np.testing.assert_array_equal(step.final_obs[..., TIME], time)
            np.testing.assert_array_equal(step.final_obs[..., GOAL], first[..., GOAL])
            np.testing.assert_array_equal(step.truncated, time == 3)
            np.testing.assert_array_equal(step.success, time == 2)
        np.testing.assert_array_equal(steps[1].obs, steps[1].final_obs)
        np.testing.assert_array_equal(steps[2].obs[..., TIME], 0)
        np.testing.assert_array_equal(steps[3].final_obs[..., TIME], 1)
        np.testing.assert_array_equal(steps[3].final_obs[..., GOAL], steps[2].obs[..., GOAL])


def test_goal_is_that_of_the_episode_the_step_belongs_to():
    with vector_env() as env:
        env.reset()
        for _ in range(8):
            step = env.step(STAY)
            np.testing.assert_array_equal(step.goal, step.final_obs[..., GOAL])


def test_termination_of_one_row_leaves_the_others_alone():
    with vector_env() as env:
        env.reset()
        action = STAY.copy()
        action[2, 1] = -1
        step = env.step(action)
        expected = np.zeros((3, 2), np.bool_)
        expected[2, 1] = True
        np.testing.assert_array_equal(step.terminated, expected)
        assert not step.truncated.any()
        np.testing.assert_array_equal(step.obs[..., TIME], np.where(expected, 0, 1))


def test_an_unstable_row_is_invalid_and_begins_anew():
    with vector_env() as env:
        env.reset()
        action = STAY.copy()
        action[1, 0] = 1
        step = env.step(action)
        expected = np.ones((3, 2), np.bool_)
        expected[1, 0] = False
        np.testing.assert_array_equal(step.valid, expected)
        np.testing.assert_array_equal(step.truncated, ~expected)
        np.testing.assert_array_equal(step.obs[..., TIME], np.where(expected, 1, 0))
        assert env.step(STAY).valid.all()


def test_returned_arrays_survive_the_next_step():
    with vector_env() as env:
        obs = env.reset()
        step = env.step(STAY)
        kept = obs.copy(), step.final_obs.copy(), step.reward.copy()
        env.step(STAY)
        for array, copy in zip((obs, step.final_obs, step.reward), kept, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_explicit_goals_hold_for_one_episode_and_do_not_move_the_streams():
    goal = np.arange(6).reshape(3, 2)
    with vector_env() as explicit, vector_env() as drawn:
        np.testing.assert_array_equal(explicit.reset(goal)[..., GOAL], goal)
        first = drawn.reset()
        steps = [explicit.step(STAY) for _ in range(3)]
        np.testing.assert_array_equal(steps[2].goal, goal)
        np.testing.assert_array_equal(steps[2].obs[..., GOAL], first[..., GOAL])


def goal_table(env, num_resets=20):
    return np.stack([env.reset()[..., GOAL] for _ in range(num_resets)], axis=-1)


def test_goal_streams_differ_between_tasks_and_envs():
    with vector_env() as env:
        streams = goal_table(env).reshape(6, -1)
    for row in range(6):
        for other in range(row):
            assert (streams[row] != streams[other]).any()


def test_goal_streams_depend_on_seed_and_task_name_only():
    with vector_env() as env, vector_env(seed=1) as reseeded:
        streams, others = goal_table(env), goal_table(reseeded)
    assert (streams != others).any(axis=-1).all()
    with vector_env(spec=make_spec(("south", "north"), envs_per_task=1)) as part:
        np.testing.assert_array_equal(goal_table(part)[:, 0], streams[[2, 0], 0])


def test_every_goal_is_drawn():
    # That one of three is missing from 60 draws of one of the six streams has a chance below 18 (2/3)^60 = 5e-10.
    with vector_env(spec=dataclasses.replace(make_spec(), num_goals=3)) as env:
        for goals in goal_table(env, num_resets=60).reshape(6, -1):
            assert set(goals.tolist()) == {0, 1, 2}


def test_results_do_not_depend_on_the_number_of_workers():
    with vector_env(workers=1) as one, vector_env(workers=2) as two, vector_env(workers=5) as five:
        first = one.reset()
        np.testing.assert_array_equal(first, two.reset())
        np.testing.assert_array_equal(first, five.reset())
        steps = rollout(one, 20)
        assert_equal_steps(steps, rollout(two, 20))
        assert_equal_steps(steps, rollout(five, 20))


def test_a_restored_env_continues_bit_for_bit():
    with vector_env(workers=1) as env, vector_env(workers=2, seed=9) as fresh:
        env.reset()
        rollout(env, 4)
        state = as_tensors(env.get_state())
        expected = rollout(env, 20)
        np.testing.assert_array_equal(fresh.set_state(state), state["obs"].reshape(3, 2, 4))
        assert_equal_steps(expected, rollout(fresh, 20))


def test_state_of_other_tasks_is_refused():
    with vector_env() as env, vector_env(spec=make_spec(("north", "east", "west"))) as other:
        env.reset()
        with pytest.raises(ValueError, match=r"west.*expected.*south"):
            env.set_state(_started(other).get_state())


def _started(env):
    env.reset()
    return env


def test_step_and_get_state_need_a_started_episode():
    with vector_env() as env:
        with pytest.raises(RuntimeError, match="reset"):
            env.step(STAY)
        with pytest.raises(RuntimeError, match="reset"):
            env.get_state()


def test_environments_work_between_the_beginning_and_the_end_of_a_step():
    with vector_env() as env, vector_env() as other:
        env.reset()
        other.reset()
        before = env._pool.arrays.final_obs.copy()
        env.step_async(STAY)
        deadline = time.monotonic() + 20
        while (env._pool.arrays.final_obs == before).all():
            assert time.monotonic() < deadline
        for found, expected in zip(env.step_wait(), other.step(STAY), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_nothing_else_can_be_asked_before_a_step_is_finished():
    with vector_env() as env:
        env.reset()
        with pytest.raises(RuntimeError, match="nothing was begun"):
            env.step_wait()
        env.step_async(STAY)
        for ask in (env.get_state, env.reset, lambda: env.step_async(STAY)):
            with pytest.raises(RuntimeError, match="cannot begin before 'step' is finished"):
                ask()
        env.step_wait()
        env.step(STAY)


def test_what_is_refused_in_the_middle_of_a_step_changes_nothing():
    with vector_env() as env, vector_env() as other, vector_env(seed=1) as foreign:
        for each in (env, other, foreign):
            each.reset()
        rollout(foreign, 1)
        state = foreign.get_state()
        env.step_async(STAY)
        refused = (
            env.reset,
            lambda: env.reset(np.zeros((3, 2), np.int64)),
            lambda: env.step_async(STAY - 0.5),
            lambda: env.set_state(state),
        )
        for ask in refused:
            with pytest.raises(RuntimeError, match="cannot begin before 'step' is finished"):
                ask()
        found = [env.step_wait(), *rollout(env, 8)]
        assert_equal_steps([other.step(STAY), *rollout(other, 8)], found)


def test_a_reset_refused_after_a_failure_for_good_draws_no_goals():
    with vector_env(raising, max_restarts=0) as env:
        env.reset()
        env.step(STAY)
        with pytest.raises(WorkerError):
            env.step(STAY)
        before = env.get_state()
        with pytest.raises(WorkerError):
            env.reset()
        np.testing.assert_equal(env.get_state(), before)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_non_finite_action_is_refused_with_task_and_env(value):
    with vector_env() as env:
        env.reset()
        action = STAY.copy()
        action[1, 1] = value
        with pytest.raises(ValueError, match=rf"{value}.*'east', env 1"):
            env.step(action)
        np.testing.assert_array_equal(env.step(STAY).final_obs[..., TIME], 1)


def test_actions_and_goals_of_wrong_shape_or_range_are_refused():
    with vector_env() as env:
        env.reset()
        with pytest.raises(ValueError, match=r"shape \(2, 3, 1\), expected .* \(3, 2, 1\)"):
            env.step(STAY.reshape(2, 3, 1))
        with pytest.raises(ValueError, match=r"shape \(2, 3\), expected integers of shape \(3, 2\)"):
            env.reset(np.arange(6).reshape(2, 3))
        with pytest.raises(ValueError, match=f"goal {NUM_GOALS} for task 'south', env 1, expected 0 to 999"):
            env.reset(np.array([[0, 0], [0, 0], [0, NUM_GOALS]]))


def test_workers_are_single_threaded_and_free_of_torch():
    with vector_env(inspecting) as env:
        obs = env.reset()
    np.testing.assert_array_equal(obs[..., :2], np.broadcast_to([0, 1], (3, 2, 2)))


def test_there_are_never_more_workers_than_envs_or_usable_cores():
    with vector_env(workers=50) as env:
        assert len(env.process_ids) == 6
    with vector_env(workers=None) as env:
        assert len(env.process_ids) == min(6, usable_cores())


@pytest.mark.parametrize(("workers", "envs_per_task", "named"), [(0, 1, "workers is 0"), (1, 0, "envs_per_task is 0")])
def test_numbers_below_one_are_refused(workers, envs_per_task, named):
    spec = make_spec(TASK_NAMES, envs_per_task)
    with pytest.raises(ValueError, match=named):
        WorkerVectorEnv(spec, inspecting, seed=0, workers=workers)


TELLING = dataclasses.replace(make_spec(), info_names=("third", "hundredfold"))
VISIBLE = dataclasses.replace(make_spec(), cameras=("front", "behind"))


def test_info_has_the_columns_asked_for_and_zeros_where_invalid():
    with vector_env(spec=TELLING, workers=2) as env:
        env.reset()
        env.step(STAY)
        action = STAY.copy()
        action[1, 0] = 1
        info = env.step(action).info
        assert info.dtype == np.float64
        expected = np.array([[[2 / 3, 2], [2 / 3, 2]], [[0, 0], [2 / 3, 102]], [[2 / 3, 202], [2 / 3, 202]]])
        np.testing.assert_array_equal(info, expected)


def test_info_is_that_of_the_step_that_ended_the_episode():
    with vector_env(spec=TELLING) as env:
        env.reset()
        steps = [env.step(STAY) for _ in range(4)]
    np.testing.assert_array_equal(steps[2].info[..., 0], 1)
    np.testing.assert_array_equal(steps[3].info[..., 0], 1 / 3)


def test_nothing_further_is_told_unless_asked_for():
    with vector_env() as env:
        env.reset()
        assert env.step(STAY).info.shape == (3, 2, 0)


def test_pictures_are_those_of_the_chosen_tasks_and_envs_in_the_order_wanted():
    with vector_env(spec=VISIBLE, workers=2) as env:
        env.reset()
        env.step(STAY)
        every = env.render(width=3, height=2)
        assert every.shape == (3, 2, 2, 3, 3)
        np.testing.assert_array_equal(every[:, :, 1, 2, 0], [[0, 0], [1, 1], [2, 2]])
        np.testing.assert_array_equal(every[:, :, 1, 2, 1], [[0, 1]] * 3)
        np.testing.assert_array_equal(every[..., 2], 1)
        chosen = env.render("behind", width=1, height=1, tasks=["south", "north"], envs=[1])
        np.testing.assert_array_equal(chosen.reshape(2, 3), [[2, 1, 101], [0, 1, 101]])
        assert env.render(tasks=[], width=1, height=1).shape == (0, 2, 1, 1, 3)


def test_a_machine_that_cannot_render_goes_on_stepping():
    with vector_env(unseen, spec=VISIBLE, workers=2) as env:
        env.reset()
        with pytest.raises(RenderingError, match="no light"):
            env.render()
        assert env.render(tasks=["north"]).shape == (1, 2, 480, 480, 3)
        assert env.step(STAY).valid.all()


def test_environments_without_cameras_say_so():
    with vector_env() as env:
        env.reset()
        with pytest.raises(NotImplementedError, match="nothing to see in north, east, south"):
            env.render()
