import json
from pathlib import Path

import pytest

from mtrl import checkpoint, cli
from scripts import evaluate_tasks

TASKS = ("reach-east", "reach-north", "reach-west", "reach-south")


def record(name, success, tasks=("reach", "push"), env="e", goal_seed=0):
    summaries = {task: {"success": value, "return": 10 * value} for task, value in zip(tasks, success, strict=True)}
    mean = sum(success) / len(success)
    return {
        "run": name,
        "step": 1200,
        "env": env,
        "goal_seed": goal_seed,
        "tasks": summaries,
        "mean": {"success": mean, "return": 10 * mean},
    }


def test_the_table_has_tasks_runs_means_and_intervals():
    lines = evaluate_tasks.table([record("a", (0.2, 1.0)), record("b", (0.4, 1.0)), record("c", (0.6, 1.0))], "success")
    # 0.4 +- 4.3027 * 0.2 / sqrt(3) = 0.4 +- 0.497, cut at 0; mean over tasks 0.6, 0.7, 0.8: 0.7 +- 0.248
    assert lines == [
        "| success | a | b | c | mean | 95% interval |",
        "|---|---|---|---|---|---|",
        "| step | 1,200 | 1,200 | 1,200 | | |",
        "| reach | 0.200 | 0.400 | 0.600 | 0.400 | 0.000 to 0.897 |",
        "| push | 1.000 | 1.000 | 1.000 | 1.000 | - |",
        "| **mean** | 0.600 | 0.700 | 0.800 | 0.700 | 0.452 to 0.948 |",
    ]


def test_one_run_has_no_interval_and_returns_are_not_cut():
    assert evaluate_tasks.table([record("a", (0.2, 1.0))], "success")[3] == "| reach | 0.200 | 0.200 | - |"
    lines = evaluate_tasks.table([record("a", (0.2, 1.0)), record("b", (0.4, 1.0))], "return")
    # 3 +- 12.7062 * sqrt(2) / sqrt(2) = 3 +- 12.7062
    assert lines[3] == "| reach | 2.0 | 4.0 | 3.0 | -9.7 to 15.7 |"


@pytest.mark.parametrize("other", [{"env": "f"}, {"goal_seed": 1}])
def test_runs_of_other_tasks_or_goals_are_refused(capsys, other):
    (name, value), *_ = other.items()
    with pytest.raises(SystemExit) as caught:
        evaluate_tasks.table([record("a", (0.2, 1.0)), record("b", (0.2, 1.0), **other)], "success")
    assert caught.value.code == 2
    assert f"b has {name} {value} and a has" in capsys.readouterr().err


def run_script(monkeypatch, *argv) -> object:
    monkeypatch.setattr("sys.argv", ["evaluate_tasks.py", *map(str, argv)])
    with pytest.raises(SystemExit) as caught:
        evaluate_tasks.main()
    return caught.value.code


def test_a_run_named_twice_is_refused(capsys, monkeypatch, tmp_path):
    assert run_script(monkeypatch, tmp_path, tmp_path / "." / "") == 2
    assert "named twice" in capsys.readouterr().err


def test_a_run_that_cannot_be_evaluated_ends_as_evaluate_does(capsys, monkeypatch, tmp_path):
    run = evaluated_run(tmp_path, 1200, evaluated_at=1000)
    (run / "checkpoints" / f"{1200:012d}" / "agent.pt").write_bytes(b"other bytes")
    assert run_script(monkeypatch, run) == 2
    assert "agent.pt is damaged" in capsys.readouterr().err


def test_runs_of_one_name_are_told_apart(capsys, monkeypatch, tmp_path):
    runs = [evaluated_run(tmp_path / name, 1200, evaluated_at=1200) for name in ("a", "b")]
    assert run_script(monkeypatch, *runs) == 0
    assert capsys.readouterr().out.startswith(f"| success | {runs[0]} | {runs[1]} |")


def evaluated_run(folder: Path, step: int, evaluated_at: int) -> Path:
    """Write a run with a checkpoint of one step and an evaluation of one."""
    run = folder / "run"
    (run / "evaluations").mkdir(parents=True)
    (run / "config.yaml").write_text(cli.parse(["--env", "toy"]).to_yaml())
    checkpoint.save(run / "checkpoints", step, {"agent": {}})
    text = json.dumps(record("old", (0.1, 0.2, 0.3, 0.4), TASKS))
    (run / "evaluations" / f"{evaluated_at:012d}.json").write_text(text)
    return run


@pytest.mark.parametrize(
    ("step", "flags", "is_reused"), [(1200, [], True), (1200, ["--again"], False), (1400, [], False)]
)
def test_an_evaluation_of_the_newest_checkpoint_is_read_and_others_are_made(
    capsys, monkeypatch, tmp_path, step, flags, is_reused
):
    run = evaluated_run(tmp_path, step, evaluated_at=1200)
    new = record("new", (0.9, 0.9, 0.9, 0.9), TASKS)
    monkeypatch.setattr("scripts.evaluate_tasks.evaluate_run", lambda options: (new, run / "new.json"))
    assert run_script(monkeypatch, run, *flags) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("| success | old" if is_reused else "| success | new")
