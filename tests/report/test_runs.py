import json

import numpy as np
import pytest

from mtrl.flags import UsageError
from mtrl.report.runs import goal_success, per_task, read, series
from tests.report.run_folders import evaluation, write


def test_values_have_task_run_and_step(tmp_path):
    # 100 * run + 10 * task + step / 10
    runs = []
    for run in (100, 200, 300):
        records = [evaluation(step, a=run + step / 10, b=run + 10 + step / 10) for step in (10, 20)]
        runs.append(read(write(tmp_path / str(run), records)))
    found = per_task(runs, "evaluation", "success")
    assert found is not None
    assert found.steps.tolist() == [10, 20]
    assert found.values.tolist() == [
        [[101, 102], [201, 202], [301, 302]],
        [[111, 112], [211, 212], [311, 312]],
    ]


def test_records_that_a_continued_run_repeats_count_once_and_as_they_were_last_written(tmp_path):
    first = [evaluation(10, a=0.1), {"kind": "train", "step": 10, "x": 1}, evaluation(20, a=0.9), evaluation(30, a=0.9)]
    again = [{"kind": "train", "step": 15, "x": 2}, evaluation(20, a=0.2)]  # continued from step 12
    run = read(write(tmp_path / "run", first + again))
    assert [(record["step"], record["success/a"]) for record in run.records["evaluation"]] == [(10, 0.1), (20, 0.2)]
    assert [(record["step"], record["x"]) for record in run.records["train"]] == [(10, 1), (15, 2)]


def test_a_line_that_is_being_written_is_left_out_and_one_torn_in_between_is_told(tmp_path):
    path = write(tmp_path / "run", [evaluation(10, a=0.5)])
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "evaluation", "st')
    run = read(path)
    assert (len(run.records["evaluation"]), run.notes) == (1, ())
    with (path / "metrics.jsonl").open("a") as file:
        file.write("\n" + json.dumps(evaluation(20, a=0.5)) + "\n")
    run = read(path)
    assert len(run.records["evaluation"]) == 2
    assert run.notes == ("1 lines of metrics.jsonl cannot be read and are left out",)


def test_only_steps_where_every_run_has_every_name_are_shared(tmp_path):
    records = [{"kind": "train", "step": step, "train_success/a": 0, "x": step} for step in (1, 2, 3)]
    records[1].pop("x")  # as before learning begins
    runs = [
        read(write(tmp_path / "a", records)),
        read(write(tmp_path / "b", [*records[:2], {**records[2], "x": None}])),
    ]
    found = series(runs, "train", ["x"])
    assert found is not None
    assert found.steps.tolist() == [1, 3]
    assert np.array_equal(found.values, [[[1, 3], [1, np.nan]]], equal_nan=True)
    assert series(runs, "train", ["y"]) is None


def test_a_run_that_has_just_begun_does_not_hide_what_others_have(tmp_path):
    begun = read(write(tmp_path / "a", [{"kind": "train", "step": 5, "train_success/a": 0.0}]))
    other = read(write(tmp_path / "b", [evaluation(10, a=0.5)]))
    assert begun.tasks == other.tasks == ("a",)
    found = per_task([begun, other], "evaluation", "success")
    assert found is not None
    assert found.values.tolist() == [[[0.5]]]


def test_the_newest_whole_evaluation_gives_success_per_goal(tmp_path):
    run = write(tmp_path / "run", [evaluation(10, a=0.5, b=0.5)])
    assert goal_success(read(run)) is None
    (run / "evaluations").mkdir()
    for step, is_whole in ((10, True), (20, True), (30, False)):
        solved = ("a", step // 10)
        pairs = [(task, goal) for task in "ab" for goal in (0, 1, 2)]
        episodes = [{"task": pair[0], "goal": pair[1], "success": pair == solved} for pair in pairs]
        record = {"step": step, "is_whole": is_whole, "num_goals": 3, "tasks": {"a": {}, "b": {}}, "episodes": episodes}
        (run / "evaluations" / f"{step:012d}{'' if is_whole else '-part'}.json").write_text(json.dumps(record))
    grid = goal_success(read(run))
    assert grid is not None
    assert grid.tolist() == [[0, 0, 1], [0, 0, 0]]
    (run / "evaluations" / f"{20:012d}.json").write_text("{torn")
    grid = goal_success(read(run))
    assert grid is not None
    assert grid.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_what_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"is not a run directory: .*metrics\.jsonl is missing"):
        read(tmp_path)
    with pytest.raises(UsageError, match="no record of training or evaluation yet"):
        read(write(tmp_path / "run", []))
    (tmp_path / "run" / "config.yaml").write_text("[]")
    with pytest.raises(UsageError, match=r"config\.yaml: expected the settings of a run"):
        read(tmp_path / "run")


def test_a_missing_description_of_the_environment_is_told(tmp_path):
    run = write(tmp_path / "run", [evaluation(10, a=0.5)])
    (run / "environment.json").write_text("[{")
    assert "versions, commit, command and hardware are unknown" in read(run).notes[0]
