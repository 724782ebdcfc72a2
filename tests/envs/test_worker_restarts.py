"""A worker that dies, hangs or raises costs the episodes of its own environments, and nothing else."""

import gc
import os
import re
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mtrl.envs import worker_pool
from mtrl.envs.worker_pool import MAX_RESTARTS, WorkerError
from mtrl.seeding import numpy_generator
from tests.envs.fakes import (
    EPISODE_STEPS,
    NUM_GOALS,
    raising,
    raising_at_actions,
    raising_at_get_state,
    raising_at_reset,
)
from tests.envs.harness import TASK_NAMES, vector_env, wait_until_gone
from tests.envs.test_workers import STAY, as_tensors, assert_equal_steps, rollout

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TASK, ENV, GOAL, TIME = range(4)
SHAPE = (3, 2)
OF_WORKER_1 = np.array([[False, True]] * 3)
"""With two workers and two environments per task the rows dealt out in turn are those of environment 1."""


def kill(env, worker, number=signal.SIGKILL):
    os.kill(env.process_ids[worker], number)


class Story:
    """What every environment must go through, told from the goal streams and from what is said to be valid."""

    def __init__(self, env, seed=0):
        self.env = env
        self.streams = [numpy_generator(seed, "goal", name, copy) for name in TASK_NAMES for copy in range(2)]
        self.goal, self.time = np.zeros(SHAPE, int), np.zeros(SHAPE, int)
        self.begin_episodes(np.ones(SHAPE, bool))
        np.testing.assert_array_equal(env.reset(), self.obs())

    def begin_episodes(self, where):
        for row in np.flatnonzero(where):
            self.goal.flat[row] = self.streams[row].integers(NUM_GOALS)
        self.time[where] = 0

    def obs(self):
        return np.stack([*np.indices(SHAPE), self.goal, self.time], -1)

    def step(self):
        """Step and compare all there is; return the step."""
        step = self.env.step(STAY)
        np.testing.assert_array_equal(step.goal, self.goal)
        self.time += 1
        np.testing.assert_array_equal(step.final_obs[step.valid], self.obs()[step.valid])
        np.testing.assert_array_equal(step.reward, np.where(step.valid, 100 * np.indices(SHAPE)[0] + self.time, 0))
        np.testing.assert_array_equal(step.success, step.valid & (self.time == 2))
        np.testing.assert_array_equal(step.truncated, ~step.valid | (self.time == EPISODE_STEPS))
        assert not step.terminated.any()
        self.begin_episodes(step.truncated)
        np.testing.assert_array_equal(step.obs, self.obs())
        return step


def test_a_worker_killed_between_the_beginning_and_the_end_of_a_step_is_replaced():
    with vector_env(workers=2) as env:
        env.reset()
        for _ in range(2):
            env.step(STAY)
        os.kill(env.process_ids[1], signal.SIGSTOP)  # so that it cannot have answered
        env.step_async(STAY)
        kill(env, 1)
        np.testing.assert_array_equal(env.step_wait().valid, ~OF_WORKER_1)
        assert env.step(STAY).valid.all()
        assert env.worker_restarts == 1


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
def test_a_killed_worker_costs_one_step_of_its_own_rows(num_steps, caplog):
    with vector_env(workers=2) as env:
        story = Story(env)
        for _ in range(num_steps):
            assert story.step().valid.all()
        kill(env, 1)
        np.testing.assert_array_equal(story.step().valid, ~OF_WORKER_1)
        for _ in range(5):
            assert story.step().valid.all()
        assert env.worker_restarts == 1
    (record,) = caplog.records
    assert re.fullmatch(
        r"while idle, holding task 'north', env 1; task 'east', env 1; task 'south', env 1: worker 1 \(pid \d+\) was "
        r"killed by SIGKILL; restarted as pid \d+ in \d+.\d s with new episodes, "
        r"failure 1 of the 3 that are survived in 10 minutes",
        record.getMessage(),
    )


def test_a_stopped_worker_is_told_from_one_that_answered(caplog):
    with vector_env(workers=2, timeout=2.0) as env:
        story = Story(env)
        story.step()
        kill(env, 0, signal.SIGSTOP)
        stopped = env.process_ids[0]
        np.testing.assert_array_equal(story.step().valid, OF_WORKER_1)
        assert wait_until_gone((stopped,))
        assert story.step().valid.all()
    assert "worker 0" in caplog.text
    assert "hangs, no answer to 'step' within 2 s; restarted" in caplog.text


def test_all_workers_may_fail_in_one_step():
    with vector_env(workers=3) as env:
        story = Story(env)
        story.step()
        for worker in range(3):
            kill(env, worker)
        assert not story.step().valid.any()
        assert story.step().valid.all()
        assert env.worker_restarts == 3


def test_a_worker_that_raises_is_replaced_and_its_task_named(caplog):
    with vector_env(raising, workers=2) as env:
        story = Story(env)
        assert story.step().valid.all()
        np.testing.assert_array_equal(story.step().valid, OF_WORKER_1)  # task 1, environment 0, at its second step
        assert story.step().valid.all()
    assert re.match(r"task 'east', env 0: 'step' failed in worker 0 \(pid \d+\): ZeroDivisionError: .*; restarted",
                    caplog.messages[0])  # fmt: skip


def test_the_action_that_broke_a_worker_is_not_repeated():
    with vector_env(raising_at_actions, workers=1) as env:
        env.reset()
        assert not env.step(STAY + 1).valid.any()
        assert env.step(STAY).valid.all()
        assert env.worker_restarts == 1


# ---- other commands than steps


def test_a_reset_is_repeated_with_the_same_goals():
    goal = np.arange(6).reshape(SHAPE)
    with vector_env(workers=2) as env, vector_env(workers=2) as healthy:
        for each in (env, healthy):
            each.reset()
        kill(env, 1)
        np.testing.assert_array_equal(env.reset(goal), healthy.reset(goal))
        assert_equal_steps(rollout(env, 8), rollout(healthy, 8))  # all valid
        assert env.worker_restarts == 1


def test_a_restored_state_does_not_depend_on_the_worker_that_was_lost():
    with vector_env(workers=2) as env, vector_env(workers=2) as healthy:
        healthy.reset()
        rollout(healthy, 4)
        state = as_tensors(healthy.get_state())
        env.reset()
        kill(env, 0)
        np.testing.assert_array_equal(env.set_state(state), state["obs"].reshape(3, 2, 4))
        assert_equal_steps(rollout(env, 8), rollout(healthy, 8))  # all valid
        assert env.worker_restarts == 1


def test_a_state_asked_of_a_lost_worker_is_that_of_new_episodes_which_the_next_step_reports():
    with vector_env(workers=2) as env, vector_env(workers=5, seed=9) as resumed:
        story = Story(env)
        story.step()
        kill(env, 1)
        state = as_tensors(env.get_state())
        np.testing.assert_array_equal(state["broken"].reshape(SHAPE), OF_WORKER_1)
        obs = state["obs"].reshape(3, 2, 4)
        np.testing.assert_array_equal(obs[..., GOAL], story.goal)
        time = obs[..., TIME]
        np.testing.assert_array_equal(time, np.where(OF_WORKER_1, 0, 1))
        np.testing.assert_array_equal([part["time"][0] for part in state["envs"]], time.reshape(-1))
        step = story.step()  # their own next goals included
        np.testing.assert_array_equal(step.valid, ~OF_WORKER_1)
        resumed.set_state(state)
        assert_equal_steps([step, *rollout(env, 8)], [resumed.step(STAY), *rollout(resumed, 8)])


# ---- once too often


def test_one_failure_more_than_are_survived_ends_all_with_the_last_traceback():
    with vector_env(raising_at_actions, workers=1) as env:
        env.reset()
        for _ in range(MAX_RESTARTS):
            assert not env.step(STAY + 1).valid.any()
        with pytest.raises(WorkerError) as error:
            env.step(STAY + 1)
        assert wait_until_gone(env.process_ids)
        with pytest.raises(WorkerError) as again:
            env.reset()
    headline, _, details = str(error.value).partition("\n\n")
    assert re.fullmatch(
        r"task 'north', env 0: 'step' failed in worker 0 \(pid \d+\): ZeroDivisionError: division by zero, "
        r"failure 4 within 10 minutes",
        headline,
    )
    assert "in _divide_by_zero" in details
    assert again.value is error.value


def test_where_the_system_starts_no_more_processes_the_failure_is_for_good(monkeypatch):
    def refuse(index, rows, memory):
        raise OSError(12, "Cannot allocate memory")

    with vector_env(workers=2) as env:
        env.reset()
        monkeypatch.setattr(worker_pool, "start", refuse)
        kill(env, 0)
        with pytest.raises(WorkerError, match=r"SIGKILL, and no other could be started: .*Cannot allocate memory"):
            env.step(STAY)
        assert wait_until_gone(env.process_ids)


def test_failures_of_long_ago_do_not_count(monkeypatch):
    monkeypatch.setattr(worker_pool, "RESTART_SECONDS", 0.0)
    with vector_env(raising_at_actions, workers=1) as env:
        env.reset()
        for _ in range(MAX_RESTARTS + 2):
            assert not env.step(STAY + 1).valid.any()
        assert env.step(STAY).valid.all()


@pytest.mark.parametrize("max_restarts", [0, 2])
def test_what_fails_in_every_process_fails_for_good(max_restarts):
    with vector_env(raising_at_reset, workers=2, max_restarts=max_restarts) as env:
        with pytest.raises(WorkerError, match=rf"'east', env 0: 'reset' .* failure {max_restarts + 1} within 10 min"):
            env.reset()
        assert env.worker_restarts == 0  # none of them came as far


def test_where_all_is_lost_the_goals_to_come_are_still_known(caplog):
    with vector_env(raising_at_get_state, workers=2) as env, vector_env(workers=2, seed=9) as resumed:
        story = Story(env)
        for _ in range(4):
            story.step()
        state = as_tensors(env.get_state())  # fails in every process
        assert state["envs"] is None
        assert caplog.messages[-1].endswith("failure 4 within 10 minutes; all episodes are lost")
        assert env.get_state()["envs"] is None
        assert len(caplog.messages) == 4
        assert wait_until_gone(env.process_ids)
        with pytest.raises(WorkerError, match="task 'east', env 0: 'get_state' failed"):
            env.step(STAY)
        obs = resumed.set_state(state)
        np.testing.assert_array_equal(obs[..., GOAL], story.goal)
        np.testing.assert_array_equal(obs[..., TIME], 0)
        assert "the episodes were lost with the environments' processes; new ones begin" in caplog.messages
        story.env = resumed
        assert not story.step().valid.any()
        for _ in range(4):
            assert story.step().valid.all()


def test_a_closed_env_has_no_state():
    with vector_env() as env:
        env.reset()
        env.close()
        with pytest.raises(RuntimeError, match="closed"):
            env.get_state()


# ---- nothing is left behind


def descriptors(pid):
    """Return what the process has open, by kind."""
    links = list(Path(f"/proc/{pid}/fd").iterdir())
    return sorted(str(link.readlink()).split(":")[0] for link in links if link.is_symlink())  # not that of the listing


def test_a_new_worker_inherits_what_the_first_ones_did_and_the_parent_keeps_nothing():
    with vector_env(workers=3, max_restarts=100) as env:
        env.reset()
        gc.collect()
        ours, theirs = descriptors("self"), descriptors(env.process_ids[0])
        assert theirs.count("socket") == 1
        for round_ in range(4):
            kill(env, round_ % 3)
            env.step(STAY)
        gc.collect()
        assert descriptors("self") == ours
        assert [descriptors(pid) for pid in env.process_ids] == [theirs] * 3


# ---- at any moment


def fail_at_random(count, number, **options):
    """Signal workers at random moments; return how often the steps, all of them checked, reported it."""
    random = np.random.default_rng(0)
    with vector_env(workers=3, max_restarts=count, **options) as env:
        story = Story(env)
        survived = 0
        for _ in range(count):
            timer = threading.Timer(random.uniform(0, 0.01), kill, (env, random.integers(3), number))
            timer.start()
            while timer.is_alive():
                survived += not story.step().valid.all()
            timer.join()
            survived += not story.step().valid.all()  # at the latest
        for _ in range(EPISODE_STEPS):
            assert story.step().valid.all()
        assert env.worker_restarts == survived
    return survived


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_workers_killed_at_random_moments_are_replaced(count):
    assert fail_at_random(count, signal.SIGKILL) == count


@pytest.mark.parametrize("count", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_workers_stopped_at_random_moments_are_replaced(count):
    assert fail_at_random(count, signal.SIGSTOP, timeout=2.0) == count
