import json

import numpy as np
import pytest

from mtrl.evaluator import Evaluation
from mtrl.results import Scope, is_whole, make_record, table, to_json
from mtrl.statistics import wilson

FOUND = Evaluation(
    goals=np.array([0, 1, 2, 3]),
    success=np.array([[True, True, True, True], [False, True, False, False]]),
    success_at_end=np.array([[True, False, True, True], [False, False, False, False]]),
    returns=np.array([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]]),
)
WHOLE = Scope(tasks=("reach", "push"), num_goals=4, is_whole=True)


def record_of(scope, found):
    return make_record(scope, found, {"run": "r", "step": 12})


def record(scope=WHOLE):
    return record_of(scope, FOUND)


def test_rates_and_means_are_per_task_and_over_all():
    tasks, mean = record()["tasks"], record()["mean"]
    assert [tasks[name]["success"] for name in ("reach", "push")] == [1.0, 0.25]
    assert [tasks[name]["success_at_end"] for name in ("reach", "push")] == [0.75, 0.0]
    assert [tasks[name]["return"] for name in ("reach", "push")] == [2.5, 25.0]
    assert (mean["success"], mean["success_at_end"], mean["return"]) == (0.625, 0.375, 13.75)
    assert (tasks["push"]["num_episodes"], mean["num_episodes"]) == (4, 8)


def test_intervals_are_wilsons_of_the_episodes_counted():
    # 4 of 4: low = 1 - z^2 / (4 + z^2) = 4 / 7.841459 = 0.510109
    assert record()["tasks"]["reach"]["success_interval"] == pytest.approx([0.510109, 1.0], abs=1e-6)
    # 5 of 8: center (0.625 + 0.240091) / 1.480182 = 0.584449, half 1.324137 * sqrt(0.029297 + 0.015006) = 0.278709
    assert record()["mean"]["success_interval"] == pytest.approx([0.305740, 0.863158], abs=1e-5)


def test_episodes_of_one_goal_are_one_trial():
    twice = FOUND._replace(goals=np.array([0, 0, 1, 1]))
    task = record_of(WHOLE, twice)["tasks"]["push"]
    assert task["success_interval"] == pytest.approx(list(wilson(0.5, 2)))


def test_every_episode_stands_in_a_line_of_its_own():
    text = to_json(record())
    assert json.loads(text) == record() | {"environment": json.loads(text)["environment"]}
    wanted = '{"task": "push", "goal": 1, "success": true, "success_at_end": false, "return": 20.0}'
    assert wanted in [line.strip(" ,") for line in text.splitlines()]


def test_the_table_shows_what_the_record_holds():
    title, header, reach, push, mean = table(record())
    assert title == "r, step 12: deterministic policy, 4 goals per task"
    assert header.split()[0] == "task"
    assert reach.split() == ["reach", "1.000", "0.510", "to", "1.000", "0.750", "0.301", "to", "0.954", "2.5", "4"]
    assert push.split()[:2] == ["push", "0.250"]
    assert mean.split()[:2] == ["mean", "0.625"]
    assert len({len(line) for line in (header, reach, push, mean)}) == 1


def test_the_table_of_one_task_shows_its_goals():
    scope = Scope(tasks=("push",), num_goals=2, episodes=2, seed=0, is_whole=False)
    found = Evaluation(np.array([0, 0, 1, 1]), *(column[1:] for column in FOUND[1:]))
    title, header, push, first, second = table(record_of(scope, found))
    assert title == "r, step 12: sampled policy, 2 goals per task"
    assert push.split()[:2] == ["push", "0.250"]
    assert first.split() == ["goal", "0", "0.500", "0.000", "15.0", "2"]
    assert second.split() == ["goal", "1", "0.000", "0.000", "35.0", "2"]
    assert len({len(line) for line in (header, push, first, second)}) == 1


def test_every_scope_has_a_file_of_its_own():
    many = tuple(f"task-number-{index}" for index in range(49))
    scopes = [
        WHOLE,
        Scope(tasks=("reach",), num_goals=4, is_whole=False),
        Scope(tasks=("push",), num_goals=4, is_whole=False),
        Scope(tasks=("reach",), num_goals=3, is_whole=False),
        Scope(tasks=("reach",), num_goals=4, seed=0, is_whole=False),
        Scope(tasks=("reach",), num_goals=4, seed=1, is_whole=False),
        Scope(tasks=("reach",), num_goals=4, seed=1, episodes=2, is_whole=False),
        Scope(tasks=many, num_goals=4, is_whole=False),
        Scope(tasks=(*many[:-1], "another"), num_goals=4, is_whole=False),
        Scope(tasks=("tasks:ours/reach",), num_goals=4, is_whole=False),
        Scope(tasks=("tasks/ours/reach",), num_goals=4, is_whole=False),
    ]
    names = {scope.file_name(12) for scope in scopes}
    assert len(names) == len(scopes)
    assert max(map(len, names)) < 150
    assert not any(set(name) & set("/:") for name in names)
    assert WHOLE.file_name(12) == "000000000012.json"


def test_a_whole_record_is_told_from_everything_else(tmp_path):
    file = tmp_path / "file.json"
    assert not is_whole(file)
    for text, expected in ((to_json(record()), True), ("torn {", False), ("[]", False)):
        file.write_text(text)
        assert is_whole(file) is expected
    file.write_text(to_json(record(Scope(tasks=("reach", "push"), num_goals=4, seed=0, is_whole=False))))
    assert not is_whole(file)
