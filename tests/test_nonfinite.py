import numpy as np
import pytest
import torch

from mtrl.interfaces import Step
from mtrl.nonfinite import NonFiniteActionError, NonFiniteError, NonFiniteUpdates, check_action, check_obs, check_step

TASKS = ("north", "east", "south")


def step_of(**arrays: np.ndarray) -> Step:
    shape = (3, 2)
    flags = np.zeros(shape, dtype=bool)
    obs = np.zeros((*shape, 4), np.float32)
    step = Step(
        obs,
        obs,
        np.zeros(shape, np.float32),
        flags,
        flags,
        flags,
        np.zeros(shape, np.int64),
        ~flags,
        np.zeros((*shape, 0)),
    )
    return step._replace(**arrays)


def spoilt(*shape: int, at: tuple[int, ...], value: float = np.nan) -> np.ndarray:
    values = np.zeros(shape, np.float32)
    values[at] = value
    return values


def test_a_step_of_numbers_passes():
    check_step(step_of(), TASKS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"reward": spoilt(3, 2, at=(1, 0), value=-np.inf)}, "reward of task 'east', environment 0 is -inf"),
        (
            {"final_obs": spoilt(3, 2, 4, at=(2, 1, 3))},
            "observation of task 'south', environment 1, component 3 is nan",
        ),
        ({"obs": spoilt(3, 2, 4, at=(0, 1, 2))}, "observation of task 'north', environment 1, component 2 is nan"),
        (
            {"reward": np.full((3, 2), np.nan, np.float32)},
            "reward of task 'north', environment 0 is nan (5 more environments have such a one)",
        ),
    ],
)
def test_what_is_no_number_in_a_step_is_named(arrays, message):
    with pytest.raises(NonFiniteError) as error:
        check_step(step_of(**arrays), TASKS)
    assert str(error.value) == message


def test_a_step_that_is_not_valid_may_hold_anything_but_an_observation_to_act_on():
    valid = np.ones((3, 2), dtype=bool)
    valid[1, 0] = False
    step = step_of(reward=spoilt(3, 2, at=(1, 0)), final_obs=spoilt(3, 2, 4, at=(1, 0, 0)), valid=valid)
    check_step(step, TASKS)
    with pytest.raises(NonFiniteError, match="observation of task 'east', environment 0"):
        check_step(step._replace(obs=spoilt(3, 2, 4, at=(1, 0, 0))), TASKS)


def test_actions_are_told_from_what_environments_return():
    with pytest.raises(NonFiniteActionError, match="action of task 'south', environment 0, component 1 is inf"):
        check_action(spoilt(3, 2, 2, at=(2, 0, 1), value=np.inf), TASKS)
    with pytest.raises(NonFiniteError) as error:
        check_obs(spoilt(3, 2, 4, at=(2, 0, 1)), TASKS)
    assert not isinstance(error.value, NonFiniteActionError)


def test_updates_looked_at_late_are_counted_and_the_first_is_named():
    updates = NonFiniteUpdates(TASKS, torch.device("cpu"), update_count=6)
    no, east, south = (torch.tensor(flags) for flags in ([0, 0, 0], [0, 1, 0], [0, 0, 1]))
    finite, nan = torch.zeros(3), torch.tensor([0, torch.nan, 0])
    found = [(no, finite, no), (east, nan, no), (east, nan, no), (no, finite, south), (south, finite, no)]
    for critic, critic_loss, actor in found:
        metrics = {"critic_nonfinite": critic.bool(), "critic_loss": critic_loss, "actor_nonfinite": actor.bool()}
        updates.note(metrics)
    assert updates.pop() == (
        4,
        "not finite in 4 updates (the first: update 8): critic loss of east; critic gradient of south; actor of south",
    )
    assert updates.pop() == (0, "")
    updates.note({"critic_nonfinite": south.bool(), "critic_loss": finite})
    assert updates.pop() == (1, "not finite in update 12: critic gradient of south")
