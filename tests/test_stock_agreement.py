"""Our evaluations are those of Meta-World's stock environments and of its own `evaluation`."""

import copy
import json
from functools import partial
from pathlib import Path

import metaworld
import numpy as np
import pytest
import torch

from mtrl import checkpoint, cli
from mtrl.agents.losses import split_policy
from mtrl.agents.mtsac import MTSAC
from mtrl.assembly import choose_device, load_policy, make_agent, make_env
from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.evaluate import main
from scripts.compare_with_stock import (
    RETURN,
    RETURN_UNTIL_SOLVED,
    SOLVED,
    SOLVED_AT_END,
    Episodes,
    compare,
    equal_episodes,
    largest_difference,
    run_stock_evaluation,
    run_stock_to_the_end,
)

TASKS = ("reach-v3", "push-v3")
NUM_GOALS = 3


@pytest.mark.mujoco
@pytest.mark.filterwarnings("ignore:Constant.* may be too high:UserWarning")  # from Meta-World's policies
@pytest.mark.parametrize("task", ["pick-place-v3", "window-close-v3"])
def test_scripted_policies_have_the_episodes_of_the_stock_evaluation(task):
    found = compare(task, num_goals=2, goal_seed=4)
    assert equal_episodes(found) == [0, 1]
    assert largest_difference(found) < 0.01  # stock sums in float32: 500 steps, a total near 5000
    assert found["ours"][SOLVED] == [1.0, 1.0]
    assert (np.array(found["ours"][RETURN]) > np.array(found["ours"][RETURN_UNTIL_SOLVED]) + 1000).all()


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


def teach_reaching(agent: MTSAC, goals_to_reach: slice) -> None:
    """Fit the actor to moving the hand (obs 0 to 2) to the goal (obs 36 to 38)."""
    generator = torch.Generator().manual_seed(0)
    leaves = [leaf.requires_grad_() for leaf in agent.actor.leaves]
    optimizer = torch.optim.Adam(leaves, lr=3e-3)
    for _ in range(300):
        obs = torch.rand(len(TASKS), 256, 39, generator=generator)
        wanted = (5 * (obs[..., goals_to_reach] - obs[..., :3])).clamp(-0.95, 0.95)
        mean, _ = split_policy(agent.actor(obs, agent.tasks.expand(obs.shape[:2])))
        loss = (mean.tanh()[..., :3] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for leaf in leaves:
        leaf.requires_grad_(False)


@pytest.fixture
def run(tmp_path) -> Path:
    """A run whose checkpoint holds a network that reaches."""
    folder = tmp_path / "run"
    settings = cli.parse(
        ["--env", "mt10:" + ",".join(TASKS), "--device", "cpu", "--network.hidden-dims", "64", "--workers", "1"]
    )
    env = make_env(settings)
    env.close()
    agent = make_agent(settings, env.spec, choose_device("cpu"))
    assert isinstance(agent, MTSAC)
    teach_reaching(agent, slice(36, 39))
    checkpoint.save(folder / "checkpoints", 0, {"agent": agent.state_dict()})
    (folder / "config.yaml").write_text(settings.to_yaml())
    return folder


def stock_env(task: str, num_goals: int, goals: np.ndarray) -> Episodes:
    """Build the stock environment of the task with goals of MT10, which another test compares with stock."""
    env = metaworld.make_mt_envs(task, seed=0, task_select="pseudorandom")
    env_class = type(env.unwrapped)
    data = [{"rand_vec": goal, "env_cls": env_class, "partially_observable": False} for goal in goals]
    env.set_wrapper_attr("tasks", [metaworld._encode_task(task, one) for one in data])
    return Episodes(env, num_goals)


@pytest.mark.mujoco
def test_a_network_has_the_episodes_that_it_has_in_stock_environments(monkeypatch, run):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr("mtrl.evaluator.ENVS_AT_ONCE", len(TASKS))  # shapes, and with them rounding, as below
    assert main([str(run), "--goals", str(NUM_GOALS), "--device", "cpu", "--json", str(run / "found.json")]) == 0
    ours = json.loads((run / "found.json").read_text())["episodes"]

    policy = load_policy(cli.load(run), run / "checkpoints" / "000000000000", None)
    goals = goal_vectors("mt10", TASKS, 0)
    stock = [partial(stock_env, task, NUM_GOALS, goals[task]) for task in TASKS]
    stopped = run_stock_evaluation(stock, policy, NUM_GOALS)
    to_the_end = run_stock_to_the_end(stock, policy, NUM_GOALS)
    for index, task in enumerate(TASKS):
        episodes = [episode for episode in ours if episode["task"] == task]
        assert [episode["success"] for episode in episodes] == [bool(value) for value in stopped[index][SOLVED]]
        assert [episode["success"] for episode in episodes] == [bool(value) for value in to_the_end[index][SOLVED]]
        assert [episode["return"] for episode in episodes] == to_the_end[index][RETURN]
    assert {episode["success"] for episode in ours} == {True, False}
