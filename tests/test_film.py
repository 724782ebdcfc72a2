"""What is seen of an episode, told by pictures that hold their own task and step."""

import dataclasses
from contextlib import closing

import numpy as np
import pytest

from mtrl.envs.workers import WorkerVectorEnv
from mtrl.evaluator import evaluate
from mtrl.film import FilmedEnv, Look, solved
from tests.envs.fakes import counting
from tests.envs.harness import make_spec

TASKS = ("north", "south")


def filmed(clips, **look):
    options = {"camera": "front", "size": 2, "every": 1, "linger": None} | look

    def make(names, copies):
        spec = dataclasses.replace(make_spec(names, envs_per_task=1), cameras=("front", "behind"))
        return FilmedEnv(WorkerVectorEnv(spec, counting, seed=0, workers=1), Look(**options), clips)

    return make


def film(goals, policy=lambda obs: np.zeros((2, 1, 1), np.float32), **look):
    """Film three-step episodes that are solved at step 2."""
    clips = {}
    found = evaluate(filmed(clips, **look), TASKS, policy, np.array(goals))
    return clips, found


def steps(clip):
    return [int(frame[0, 0, 2]) for frame in clip.frames]


def test_every_step_but_the_last_is_seen_which_would_be_the_next_episode():
    clips, found = film([4, 7])
    assert set(clips) == {(task, goal) for task in TASKS for goal in (4, 7)}
    for (task, _), clip in clips.items():
        assert steps(clip) == [0, 1, 2]
        assert (clip.frames[0][..., 0] == TASKS.index(task)).all()
        assert (clip.solved_at, clip.solved_from) == (2, 2)
    assert found.success.all()
    assert solved(clips) == 4


def test_a_solved_episode_is_shown_for_so_long_and_ends():
    taken = []

    def policy(obs):
        taken.append(obs[0, 0, -1])
        return np.zeros((2, 1, 1), np.float32)

    clips, found = film([4], policy, linger=0)
    assert steps(clips["north", 4]) == [0, 1, 2]
    assert taken == [0, 1]  # the third step is not taken
    assert found.success.all()


def test_what_is_solved_between_pictures_shows_in_the_next_or_once_more_at_the_end():
    clips, _ = film([4], every=3)  # solved at step 2; the next picture would be of step 3, which ends the episode
    assert steps(clips["south", 4]) == [0, 0]
    assert clips["south", 4].solved_from == 1


def test_the_camera_is_the_one_chosen():
    assert steps(film([4], camera="behind")[0]["north", 4]) == [100, 101, 102]


def test_an_episode_that_broke_off_is_filmed_anew():
    calls = iter(range(100))

    def policy(obs):  # the first action of task 1 is an unstable simulation
        return np.array([[[0]], [[1.0 if next(calls) == 0 else 0]]], np.float32)

    clips, found = film([4], policy)
    assert found.success.all()
    assert steps(clips["south", 4]) == [0, 1, 2]
    assert steps(clips["north", 4]) == [0, 1, 2]  # not filmed a second time
    assert solved(clips) == 2


@pytest.mark.parametrize("linger", [None, 0])
def test_nothing_lives_on_after_the_film(linger):
    with closing(filmed({}, linger=linger)(TASKS, 1)) as env:
        env.reset(np.zeros((2, 1), np.int64))
        assert env.worker_restarts == 0
        state = env.get_state()
        env.step(np.zeros((2, 1, 1), np.float32))
        assert env.set_state(state)[1, 0].tolist() == [1, 0, 0, 0]
