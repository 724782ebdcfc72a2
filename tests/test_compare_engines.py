"""The comparison of the engines finds whatever differs."""

import sys

import numpy as np
import pytest

from mtrl.envs.worker_process import Transition
from mtrl.interfaces import Step
from scripts import compare_engines
from scripts.compare_engines import Comparison, are_equal, compare_single, main, note_rows, note_transitions, table

TRANSITION = Transition(np.array([0.5, 1.5], np.float32), 2.0, terminated=False, truncated=False, success=True)

ABOUT = {
    "versions": dict.fromkeys(("python", "metaworld", "mujoco", "gymnasium", "numpy"), "1.0"),
    "time": "2026-01-02T03:04:05",
    "commit": "abc",
    "cpu": "a processor",
}


def step():
    """Return a step of one task with two copies."""
    return Step(
        obs=np.ones((1, 2, 3), np.float32),
        final_obs=np.ones((1, 2, 3), np.float32),
        reward=np.ones((1, 2), np.float32),
        terminated=np.zeros((1, 2), np.bool_),
        truncated=np.array([[False, True]]),
        success=np.array([[True, False]]),
        goal=np.zeros((1, 2), np.int64),
        valid=np.ones((1, 2), np.bool_),
        info=np.zeros((1, 2, 0)),
    )


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"obs": np.array([0.5, np.nextafter(np.float32(1.5), np.float32(2))], np.float32)}, "observations"),
        ({"reward": 2.0 + 2e-12}, "rewards"),
        ({"terminated": True}, "outcomes"),
        ({"truncated": True}, "outcomes"),
        ({"success": False}, "outcomes"),
        ({"valid": False}, "outcomes"),
    ],
)
def test_a_transition_that_differs_in_anything_is_found(changes, what):
    found = Comparison()
    note_transitions(found, "here", TRANSITION, TRANSITION)
    assert found == Comparison(steps=1, solved_steps=1)
    note_transitions(found, "there", TRANSITION._replace(**changes), TRANSITION)
    assert getattr(found, f"different_{what}") == 1
    assert found.first == f"there: {what}"


def test_rewards_may_differ_in_their_last_digits():
    found = Comparison()
    note_transitions(found, "here", TRANSITION._replace(reward=np.nextafter(2.0, 3)), TRANSITION)
    assert found.is_equal
    assert found.largest_reward_difference == 2.0**-51  # the distance of numbers from 2 to 4: 2 x 2^-52


def test_rewards_that_round_apart_are_found():
    # Half way between two numbers of float32, 2 and 2 + 2^-22, and a last digit beyond: within the tolerance.
    half = 2.0 + 2.0**-23
    found = Comparison()
    note_transitions(found, "here", TRANSITION._replace(reward=np.nextafter(half, 3)), TRANSITION._replace(reward=half))
    assert found.different_rewards == 1


@pytest.mark.parametrize("name", [name for name in Step._fields if name != "info"])  # whose tests are its own
def test_a_row_that_differs_in_anything_is_found(name):
    found = Comparison()
    ours, expected = step(), step()
    changed = getattr(ours, name)
    changed[0, 1] = ~changed[0, 1] if changed.dtype == np.bool_ else changed[0, 1] + 1
    note_rows(found, "first copy", ours, expected, (0, 0))
    assert found == Comparison(steps=1, solved_steps=1)
    note_rows(found, "second copy", ours, expected, (0, 1))
    assert found.first.startswith("second copy: ")
    assert found.episodes == 1


def test_states_differ_in_the_simulation_or_in_the_frame():
    def state(simulation, frame):
        return {"simulation": np.array(simulation), "attributes": {"_prev_obs": np.array(frame)}}

    one = state([1.0, 2.0], [3.0])
    assert are_equal(one, state([1.0, 2.0], [3.0]))
    assert not are_equal(one, state([1.0, np.nextafter(2.0, 3)], [3.0]))
    assert not are_equal(one, state([1.0, 2.0], [np.nextafter(3.0, 4)]))


def test_the_table_names_what_differs_first():
    found = {"reach-v3": Comparison(steps=3), "push-v3": Comparison(steps=4)}
    found["push-v3"].note("vector, step 3", rewards=True, states=False)
    found["push-v3"].note("vector, step 4", rewards=True, states=True)
    text = "\n".join(table(found, [0, 49], ABOUT))
    assert "**1 of 2 tasks equal**, in 7 steps" in text
    assert "| push-v3 | 0 | 4 | 0 | 0 | **1 differ** | equal | equal | **2 differ** | 0.0e+00 |" in text
    assert "- push-v3: vector, step 3: rewards." in text
    assert "reach-v3:" not in text


@pytest.mark.parametrize(("first", "code"), [("", 0), ("single, reset: states", 1)])
def test_a_difference_is_an_exit_code(monkeypatch, tmp_path, first, code):
    monkeypatch.setattr(sys, "argv", ["compare_engines", "--tasks", "reach-v3", "--output", str(tmp_path / "table.md")])
    monkeypatch.setattr(compare_engines, "compare_single", lambda *_: Comparison(first=first))
    monkeypatch.setattr(compare_engines, "compare_vector", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    assert f"**{1 - code} of 1 tasks equal**" in (tmp_path / "table.md").read_text()


@pytest.mark.mujoco
@pytest.mark.timeout(180)  # compiles
@pytest.mark.filterwarnings("ignore:Constant.* may be too high:UserWarning")  # from Meta-World's policies
def test_a_single_environment_is_compared_at_every_step():
    found = compare_single("reach-v3", [5, 6], goal_seed=1, kinds=("saturating", "policy"), steps=60)
    assert found.is_equal
    assert (found.episodes, found.steps, found.states) == (4, 240, 240)
    assert found.solved_steps > 0
