"""The same bugs on Meta-World itself, across the time limit at 500 steps.

A Meta-World observation names its predecessor: 18 numbers of now, the same 18 one step before, and the goal.
"""

import numpy as np
import pytest

from mtrl import envs
from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.envs.metaworld.tasks import MAX_EPISODE_STEPS
from tests.bugs.collecting import Bug, Row, collect, stored_rows
from tests.bugs.test_data_bugs import (
    all_tasks_share_one_goal_stream,
    the_reset_observation_is_the_next_observation,
    truncation_is_termination,
)

pytestmark = pytest.mark.mujoco

TASKS = ("reach-v3", "push-v3")
NOW, BEFORE, GOAL = slice(0, 18), slice(18, 36), slice(36, 39)
STEPS = MAX_EPISODE_STEPS + 3


def a_time_limit_is_crossed_cleanly() -> None:
    """503 steps of a task are 503 true transitions in two episodes of goals of its own, none of them terminal."""
    rows = stored_rows(collect(envs.make(f"mt10:{','.join(TASKS)}", workers=1), vector_steps=STEPS).replay)
    first_goals = set()
    for index, task in enumerate(TASKS):
        own = [row for row in rows if row.task == index]
        assert len(own) == STEPS
        for row in own:
            assert row.next_obs[BEFORE].equal(row.obs[NOW]), "next_obs names another predecessor"
            assert row.next_obs[GOAL].equal(row.obs[GOAL]), "next_obs has another goal"
            assert not row.is_terminated, "Meta-World never terminates"
        firsts = [row for row in own if row.obs[BEFORE].equal(row.obs[NOW])]
        assert len(firsts) == 2, "an episode begins without a past"
        first_goals.add(frozenset(goal_index(task, row) for row in firsts))
    assert len(first_goals) == len(TASKS), "tasks share their goals"


def goal_index(task: str, row: Row) -> int:
    goals = goal_vectors("mt10", TASKS, 0)[task][:, -3:].astype(np.float32)  # before them stands the object
    (index,) = np.flatnonzero((goals == row.obs[GOAL].numpy()).all(1))
    return int(index)


BUGS = [
    Bug(the_reset_observation_is_the_next_observation, a_time_limit_is_crossed_cleanly, "names another predecessor"),
    Bug(truncation_is_termination, a_time_limit_is_crossed_cleanly, "never terminates"),
    Bug(all_tasks_share_one_goal_stream, a_time_limit_is_crossed_cleanly, "tasks share their goals"),
]


def test_fact_holds():
    a_time_limit_is_crossed_cleanly()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.put_back.__name__)
def test_bug_is_caught(bug, monkeypatch):
    bug.put_back(monkeypatch)
    with pytest.raises(AssertionError, match=bug.symptom):
        bug.fact()
