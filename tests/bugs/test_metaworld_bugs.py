"""The same bugs on Meta-World itself, across the time limit at 500 steps.

A Meta-World observation names its predecessor: 18 numbers of now, the same 18 one step before, and the goal.
"""

import pytest

from mtrl import envs
from mtrl.envs.metaworld.tasks import MAX_EPISODE_STEPS
from tests.bugs.collecting import Bug, collect, stored_rows
from tests.bugs.test_data_bugs import (
    the_reset_observation_is_the_next_observation,
    truncation_is_termination,
)

pytestmark = pytest.mark.mujoco

TASKS = ("reach-v3", "push-v3")
NOW, BEFORE, GOAL = slice(0, 18), slice(18, 36), slice(36, 39)
STEPS = MAX_EPISODE_STEPS + 3


def a_time_limit_is_crossed_cleanly() -> None:
    """503 steps of a task are 503 true transitions in two episodes, none of them terminal."""
    rows = stored_rows(collect(envs.make(f"mt10:{','.join(TASKS)}", workers=1), vector_steps=STEPS).replay)
    for row in rows:
        assert row.next_obs[BEFORE].equal(row.obs[NOW]), "next_obs names another predecessor"
        assert row.next_obs[GOAL].equal(row.obs[GOAL]), "next_obs has another goal"
        assert not row.is_terminated, "Meta-World never terminates"
    assert [row.task for row in rows] == [0] * STEPS + [1] * STEPS
    firsts = [row.task for row in rows if row.obs[BEFORE].equal(row.obs[NOW])]  # an episode begins without a past
    assert firsts == [0, 0, 1, 1]


BUGS = [
    Bug(the_reset_observation_is_the_next_observation, a_time_limit_is_crossed_cleanly, "names another predecessor"),
    Bug(truncation_is_termination, a_time_limit_is_crossed_cleanly, "never terminates"),
]


def test_fact_holds():
    a_time_limit_is_crossed_cleanly()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.put_back.__name__)
def test_bug_is_caught(bug, monkeypatch):
    bug.put_back(monkeypatch)
    with pytest.raises(AssertionError, match=bug.symptom):
        bug.fact()
