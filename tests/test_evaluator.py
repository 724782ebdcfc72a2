import os
import signal

import numpy as np
import pytest

from mtrl.envs.toy import DIRECTIONS, Toy, make
from mtrl.evaluator import ENVS_AT_ONCE, evaluate, evaluate_env, spread_goals
from mtrl.interfaces import EnvSpec, Step
from tests.envs.harness import vector_env


class CountingEnv:
    """Episodes end after 3 + goal steps; reward is 1 + 10 * task; solved only in the middle step 2 for odd goals.

    Those with goal 5 break off at their first step, after the first `broken_resets` resets.
    """

    def __init__(self, envs_per_task, broken_resets=0):
        self.spec = EnvSpec(
            task_names=("a", "b"),
            envs_per_task=envs_per_task,
            obs_dim=1,
            action_dim=1,
            max_episode_steps=20,
            num_goals=8,
        )
        self.started = []
        self.resets_to_break = broken_resets
        self.worker_restarts = 0

    def reset(self, goal=None):
        assert goal is not None  # an evaluation always says which
        self.is_breaking = self.resets_to_break > 0
        self.resets_to_break -= 1
        self.goal = goal.copy()
        self.started += [tuple(pair) for pair in np.stack([np.indices(goal.shape)[0], goal], -1).reshape(-1, 2)]
        self.time = np.zeros(goal.shape, dtype=int)
        return self.time[..., None].astype(np.float32)

    def step_async(self, action):
        raise AssertionError("an evaluation has nothing to do meanwhile")

    def step_wait(self):
        raise AssertionError("an evaluation has nothing to do meanwhile")

    def step(self, action):
        self.time += 1
        ended = self.time == 3 + self.goal
        is_next_episode = self.time < 0  # solved and full of reward, and must not count
        success = ((self.time == 2) & (self.goal % 2 == 1)) | is_next_episode
        goal = self.goal.copy()
        reward = np.where(is_next_episode, 1000.0, 1.0) + 10 * np.arange(2)[:, None]
        valid = ~((goal == 5) & (self.time == 1) & self.is_breaking)
        self.time[ended | ~valid] = -50  # the next episode, which must not count
        obs = self.time[..., None].astype(np.float32)
        no_info = np.zeros((*valid.shape, 0))
        return Step(obs, obs, reward.astype(np.float32), ended, ~valid, success, goal, valid, no_info)

    def get_state(self):
        return {}

    def set_state(self, state):
        raise AssertionError("an evaluation restores nothing")

    def render(self, camera=None, *, width=480, height=480, tasks=None, envs=None):
        raise AssertionError("an evaluation does not look")

    def close(self):
        pass


def no_action(obs):
    return np.zeros((*obs.shape[:2], 1), dtype=np.float32)


@pytest.mark.parametrize("envs_per_task", [1, 3, 8])
def test_every_goal_of_every_task_is_run_once_and_lands_in_its_place(envs_per_task):
    goals = np.array([0, 1, 2, 3, 4])
    result = evaluate_env(CountingEnv(envs_per_task), no_action, goals)
    # An episode with goal g has 3 + g steps of reward 1 + 10 * task.
    np.testing.assert_allclose(result.returns, np.outer([1, 11], 3 + goals))
    assert (result.success == (goals % 2 == 1)).all()
    assert not result.success_at_end.any()  # solved in the middle only


@pytest.mark.parametrize("envs_per_task", [1, 2, 3])
def test_an_episode_that_broke_off_is_run_again_and_counts_once(envs_per_task, caplog):
    goals, reported = np.array([0, 5, 6, 5, 7]), []
    env = CountingEnv(envs_per_task, broken_resets=-(-5 // envs_per_task))  # all of the first pass
    result = evaluate_env(env, no_action, goals, reported.append)
    np.testing.assert_allclose(result.returns, np.outer([1, 11], 3 + goals))
    assert (result.success == (goals % 2 == 1)).all()
    assert sum(reported) == 2 * 5
    assert not caplog.messages


def test_an_episode_that_broke_off_twice_counts_as_failed_and_is_named(caplog):
    result = evaluate_env(CountingEnv(2, broken_resets=100), no_action, np.array([5, 7, 5]))
    assert result.success.tolist() == [[False, True, False], [False, True, False]]
    assert caplog.messages == [f"task {t!r}: episodes broke off twice and count as failed, goals 5, 5" for t in "ab"]


def test_a_worker_lost_in_an_evaluation_changes_none_of_its_numbers():
    calls = []

    def act_and_kill(obs):
        calls.append(obs)
        if len(calls) in (2, 7):  # in the middle of the first round of 3 steps, and when the third begins
            os.kill(env.process_ids[1], signal.SIGKILL)
        return np.zeros((*obs.shape[:2], 1), dtype=np.float32)

    goals = np.arange(6)
    with vector_env(workers=2) as healthy:
        expected = evaluate_env(healthy, no_action, goals)
    with vector_env(workers=2) as env:
        found = evaluate_env(env, act_and_kill, goals)
        assert env.worker_restarts == 2
    assert len(calls) == 3 * (
        3 + 1
    )  # the episodes of environment 1 with goals 1 and 5, of each task, in a fourth round
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.success.all()


def test_goals_are_spread_over_all_and_always_the_same():
    assert spread_goals(50, 50).tolist() == list(range(50))
    assert spread_goals(50, 5).tolist() == [0, 12, 24, 37, 49]
    assert len(set(spread_goals(50, 37).tolist())) == 37


@pytest.mark.parametrize("count", [0, 51])
def test_a_number_of_goals_outside_the_range_is_refused(count):
    with pytest.raises(ValueError, match="between 1 and 50"):
        spread_goals(50, count)


def test_results_do_not_depend_on_how_many_copies_run_side_by_side():
    def run(envs_per_task):
        env = make("toy", None, seed=0, goal_seed=0, envs_per_task=envs_per_task, workers=None)
        return evaluate_env(env, lambda obs: 0.3 - obs[..., :2], np.arange(7))

    one, four = run(1), run(4)
    assert all(np.array_equal(a, b) for a, b in zip(one, four, strict=True))


def test_tasks_are_evaluated_a_few_at_a_time_and_every_policy_meets_its_own_task(monkeypatch):
    monkeypatch.setattr("mtrl.evaluator.ENVS_AT_ONCE", 3)
    tasks = ("reach-south", "reach-east", "reach-west", "reach-north")
    alive = []

    class Watched(Toy):
        def __init__(self, names, copies):
            super().__init__(names, seed=0, goal_seed=0, envs_per_task=copies)
            alive.append(len(names) * copies)

        def close(self):
            alive[-1] = -alive[-1]  # closed before the next one is made

    def toward_own_goal(obs):
        direction = 0.7 * np.array([DIRECTIONS[task] for task in tasks])[:, None]
        return 10 * (direction + obs[..., 4:6] - obs[..., :2] - obs[..., 2:4])

    result = evaluate(Watched, tasks, toward_own_goal, np.arange(5))
    assert alive == [-3, -3]  # three tasks once, then one task three times
    assert result.success.shape == (4, 5)
    assert result.success.all()
    assert ENVS_AT_ONCE == 10


def test_some_tasks_alone_meet_their_own_policy_and_goals():
    tasks = ("reach-south", "reach-east", "reach-west", "reach-north")

    def make_toy(names, copies):
        return Toy(names, seed=0, goal_seed=0, envs_per_task=copies)

    def a_constant_per_task(obs):
        return np.broadcast_to(np.linspace(-1, 1, 4)[:, None, None], (*obs.shape[:2], 2))

    whole = evaluate(make_toy, tasks, a_constant_per_task, np.arange(3))
    part = evaluate(make_toy, tasks, a_constant_per_task, np.arange(3), only=("reach-north", "reach-east"))
    np.testing.assert_array_equal(part.returns, whole.returns[[3, 1]])
    assert len(set(whole.returns[:, 0])) == 4


def test_episodes_are_reported_as_they_end_without_those_that_fill_a_round():
    reported = []
    evaluate_env(CountingEnv(2), no_action, np.array([0, 1, 2, 3, 4]), reported.append)
    assert reported == [4, 4, 2]  # 2 tasks x 5 goals, 2 goals at a time
