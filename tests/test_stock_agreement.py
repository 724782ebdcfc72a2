"""Our evaluations are those of Meta-World's stock environments and of its own `evaluation`."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from mtrl import checkpoint, cli
from mtrl.agents.mtsac import MTSAC
from mtrl.assembly import choose_device, make_agent, make_env
from mtrl.evaluate import main
from scripts.compare_run_with_stock import compare_run
from scripts.compare_with_stock import (
    RETURN,
    RETURN_UNTIL_SOLVED,
    SOLVED,
    SOLVED_AT_END,
    compare,
    equal_episodes,
    largest_difference,
)

pytestmark = pytest.mark.timeout(180)  # mostly physics, which a busy machine makes slow

TASKS = ("reach-v3", "push-v3")
NUM_GOALS = 2


@pytest.mark.mujoco
@pytest.mark.filterwarnings("ignore:Constant.* may be too high:UserWarning")  # from Meta-World's policies
@pytest.mark.parametrize("task", ["pick-place-v3", "coffee-button-v3"])
def test_scripted_policies_have_the_episodes_of_the_stock_evaluation(task):
    found = compare(task, num_goals=2, goal_seed=4)
    assert equal_episodes(found) == [0, 1]
    assert largest_difference(found) < 0.01  # stock sums in float32: 500 steps, a total near 5000
    assert found["ours"][SOLVED] == [1.0, 1.0]
    # The coffee machine's button comes back: solved, and not at the end.
    assert found["ours"][SOLVED_AT_END] == [0.0 if task == "coffee-button-v3" else 1.0] * 2
    assert (np.array(found["ours"][RETURN]) > np.array(found["ours"][RETURN_UNTIL_SOLVED]) + 400).all()


@pytest.mark.parametrize(
    ("way", "quantity"),
    [
        ("evaluation", SOLVED),
        ("evaluation", RETURN_UNTIL_SOLVED),
        ("to the end", SOLVED),
        ("to the end", SOLVED_AT_END),
        ("to the end", RETURN),
    ],
)
def test_an_episode_that_differs_in_anything_is_found(way, quantity):
    numbers = {SOLVED: [1.0, 1.0], SOLVED_AT_END: [0.0, 1.0], RETURN: [5.0, 6.0], RETURN_UNTIL_SOLVED: [2.0, 3.0]}
    found = {name: copy.deepcopy(numbers) for name in ("ours", "evaluation", "to the end")}
    assert equal_episodes(found) == [0, 1]
    found[way][quantity][1] = np.nextafter(found[way][quantity][1], 10)
    assert equal_episodes(found) == [0]


# ---- a network


def make_it_reach(agent: MTSAC) -> None:
    """Let three hidden units hold goal (obs 36 to 38) - hand (obs 0 to 2), which the action follows."""
    weight, bias = agent.actor.shared["hidden.0.weight"], agent.actor.shared["hidden.0.bias"]
    for axis in range(3):
        weight[axis] = 0
        weight[axis, 36 + axis], weight[axis, axis] = 1, -1
        bias[axis] = 1  # keeps the unit positive, hence linear
        agent.actor.shared["output.weight"][axis, axis] = 10
        agent.actor.shared["output.bias"][axis] = -10


@pytest.fixture
def run(tmp_path) -> Path:
    """A run whose checkpoint holds a network that reaches."""
    folder = tmp_path / "run"
    settings = cli.parse(
        ["--env", "mt10:" + ",".join(TASKS), "--device", "cpu", "--network.hidden-dims", "16", "--workers", "1"]
    )
    env = make_env(settings)
    env.close()
    agent = make_agent(settings, env.spec, choose_device("cpu"))
    assert isinstance(agent, MTSAC)
    make_it_reach(agent)
    checkpoint.save(folder / "checkpoints", 0, {"agent": agent.state_dict()})
    (folder / "config.yaml").write_text(settings.to_yaml())
    return folder


@pytest.mark.mujoco
def test_a_network_has_the_episodes_that_it_has_in_stock_environments(monkeypatch, run):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    found = compare_run(run, NUM_GOALS)
    assert [equal_episodes(numbers) for numbers in found.values()] == [[0, 1]] * len(TASKS)
    assert {solved for numbers in found.values() for solved in numbers["ours"][SOLVED]} == {0.0, 1.0}

    monkeypatch.setattr("mtrl.evaluator.ENVS_AT_ONCE", len(TASKS))  # shapes, and with them rounding, as above
    assert main([str(run), "--goals", str(NUM_GOALS), "--device", "cpu", "--json", str(run / "found.json")]) == 0
    episodes = json.loads((run / "found.json").read_text())["episodes"]
    for task, numbers in found.items():
        own = [episode for episode in episodes if episode["task"] == task]
        assert [episode["success"] for episode in own] == [bool(value) for value in numbers["to the end"][SOLVED]]
        assert [episode["return"] for episode in own] == numbers["to the end"][RETURN]
