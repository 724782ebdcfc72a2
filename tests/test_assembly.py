"""Names become objects."""

import numpy as np
import pytest

from mtrl import cli
from mtrl.agents.mtsac import MTSAC
from mtrl.assembly import choose_device, make_agent, make_env

SETTINGS = ["--env", "toy", "--goal-seed", "3", "--network.hidden-dims", "8"]


def test_environments_are_those_of_the_run():
    env = make_env(cli.parse([*SETTINGS, "--envs-per-task", "5"]))
    assert env.spec.task_names == ("reach-east", "reach-north", "reach-west", "reach-south")
    assert env.spec.envs_per_task == 5


def test_some_tasks_keep_the_goals_they_have_in_the_run():
    settings = cli.parse(SETTINGS)
    whole, part = make_env(settings), make_env(settings, tasks=("reach-west",), envs_per_task=1)
    goals = whole.reset(np.full((4, 2), 7))
    assert np.array_equal(part.reset(np.full((1, 1), 7))[0, 0], goals[2, 0])


def test_the_agent_has_the_parts_named():
    settings = cli.parse([*SETTINGS, "--network", "multi_head", "--critic.aggregator", "aligned"])
    agent = make_agent(settings, make_env(settings).spec, choose_device("cpu"))
    assert isinstance(agent, MTSAC)
    assert agent.actor.private  # a head per task
    assert [type(part.aggregator).__name__ for part in (agent.critic, agent.actor)] == ["Aligned", "Mean"]


@pytest.mark.parametrize(("has_cuda", "found"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_one(monkeypatch, has_cuda, found):
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_cuda)
    assert choose_device("auto").type == found
    assert choose_device("cpu").type == "cpu"
