"""Tables of comparisons, from runs made by hand, and which trainings are started for them."""

import json
import subprocess
from pathlib import Path

import pytest

from mtrl.envs import task_names
from scripts import compare_groups, toy_claims, training_runs
from scripts.toy_claims import Runs

TASKS = ("reach-east", "reach-north", "reach-west", "reach-south")


def write_run(directory: Path, flags, evaluations, conditions=()):
    """Write what the tables read of a complete run; one record of success by task, or of a condition number, each."""
    directory.mkdir(parents=True)
    records = [{"kind": "train", "step": 0}]  # before the first update
    for before in conditions:
        numbers = {f"condition_number/{component}": before for component in ("critic", "actor")}
        records.append({"kind": "train", "step": 1, **numbers, "condition_number_after/critic": 1.0})
    for step, success in enumerate(evaluations, 1):
        values = {f"success/{task}": value for task, value in success.items()}
        mean = sum(success.values()) / len(success)
        records.append(
            {"kind": "evaluation", "step": 1000 * step, **values, "success/mean": mean, "success/worst": 0.0}
        )
    (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    start = {"commit": "abc", "cpu": "a CPU", "versions": {"torch": "2"}}
    start["command"] = ["python", "train.py", *flags, "--run-dir", f"{directory}.partial"]
    (directory / "environment.json").write_text(json.dumps([start]))


def alike(value, tasks=TASKS):
    return dict.fromkeys(tasks, value)


@pytest.fixture
def runs(tmp_path):
    """All runs of two seeds; every task is solved at the rates below, first and last."""
    runs = Runs(tmp_path, 2)
    rates = {"toy-mean-0": (1.0, 0.8), "toy-mean-1": (1.0, 1.0), "toy_scaled-it_mtl-1": (0.5, 0.0)}
    conditions = {"toy_scaled-mean-0": (10, 1000, 100), "toy_scaled-mean-1": (10000,)}
    for run in runs.all():
        name = run.directory.name
        tasks = task_names(run.flags[run.flags.index("--env") + 1])
        first, final = rates.get(name, (0.0, 0.5))
        evaluations = [alike(first, tasks), alike(final, tasks)]
        if name == "toy_exp-mean-0":
            evaluations = [alike(0.0), {**alike(0.0), "reach-west": 0.6}]
        write_run(run.directory, run.flags, evaluations, conditions.get(name, (7,)))
    return runs


def test_condition_numbers_are_medians_of_runs_and_geometric_means_over_seeds(runs):
    lines = toy_claims.condition_table(runs)
    # 100 and 10000: 10^(3 +- 12.7062 * sqrt(2) / sqrt(2)); a method that mixes with no matrix has none after
    assert lines[2].startswith("| mean | critic | 1,000 (1.97e-10 to 5,083,9")
    assert lines[2].endswith(" | 100 to 10,000 | 1 |")
    assert lines[3].endswith(" | 100 to 10,000 |  |")
    assert lines[4] == "| aligned | critic | 7 | 7 to 7 | 1 |"


def test_the_transformed_task_and_the_others_are_compared_with_nominal_seed_by_seed(runs):
    lines = toy_claims.transform_table(runs, "toy_exp")
    assert lines[0] == "`toy_exp`: the reward r of reach-west becomes exp(5 r)."
    (mean,) = [line for line in lines if line.startswith("| mean")]
    cells = [cell.strip() for cell in mean.split("|")[2:-1]]
    # west: 0.8, 1.0 becomes 0.6, 0.5: -0.2 and -0.5; others: 0.0, 0.5: -0.8 and -0.5
    assert cells == [
        "0.90 (0.00 to 1.00), 1.00, 0.95",
        "0.55 (0.00 to 1.00), 0.55, 0.28",
        "-0.35 (-1.00 to 1.00)",
        "0.90 (0.00 to 1.00), 1.00, 0.95",
        "0.25 (0.00 to 1.00), 0.25, 0.12",
        "-0.65 (-1.00 to 1.00)",
    ]


def test_success_has_the_last_the_best_and_the_average_evaluation(runs):
    lines = toy_claims.success_table(runs, "toy_scaled")
    # seeds go from 0.0 to 0.5 and from 0.5 to 0.0
    assert lines[-1] == "| it_mtl |" + " 0.25 (0.00 to 1.00) |" * 5 + " 0.50 | 0.25 |"


def test_the_report_names_commands_and_where_the_runs_come_from(runs):
    text = toy_claims.report(runs)
    assert "--seeds 2 --output results/toy_claims.md" in text
    assert f"2,000 environment steps, seeds 0 to 1.\n{len(runs.all())} runs, commit abc, CPU a CPU, torch 2." in text


def test_groups_are_put_together_and_compared_with_one_policy_for_all(tmp_path):
    def trained(name, *evaluations):
        write_run(tmp_path / name, (), evaluations)
        return training_runs.Run(tmp_path / name, ())

    joint = [(trained(f"joint{seed}", alike(0.5, "ab"), alike(last, "ab")),) for seed, last in enumerate((0.2, 0.4))]
    apart = [
        (trained(f"a{seed}", {"a": 1.0}, {"a": 0.5}), trained(f"b{seed}", {"b": 0.0}, {"b": last}))
        for seed, last in enumerate((0.7, 0.9))
    ]
    lines = compare_groups.table("ab", {"joint": joint, "separate": apart})
    assert lines[0] == "| success | policies | a | b | mean, last | mean, best | minus joint | minus separate |"
    assert lines[2].endswith("| 0.30 (0.00 to 1.00) | 0.50 |  | -0.35 (-0.99 to 0.29) |")
    # means of both tasks: 0.5 first, 0.6 and 0.7 last
    cells = ["0.50", "0.80 (0.00 to 1.00)", "0.65 (0.01 to 1.00)", "0.65 (0.01 to 1.00)", "0.35 (-0.29 to 0.99)"]
    assert lines[3] == f"| separate | 2 | {' | '.join(cells)} |  |"


def test_every_policy_of_a_comparison_has_the_same_steps_per_task(tmp_path):
    comparison = compare_groups.Comparison(tmp_path, "toy", ["--total-steps", "8000", "--aggregator", "aligned"])
    pair, single = comparison.runs((("reach-west", "reach-east"), ("reach-north",)), seed=3)
    assert pair.flags[:4] == ("--env", "toy:reach-east,reach-west", "--seed", "3")  # in the order of the suite
    assert pair.flags[-6:] == ("--total-steps", "4000", "--eval-every", "2000", "--log-every", "500")
    assert single.flags[-6:] == ("--total-steps", "2000", "--eval-every", "1000", "--log-every", "250")


@pytest.fixture
def started(monkeypatch):
    """Let a training write a run at once, and fail where its seed is 13; return the commands."""
    commands = []

    def run(command, **options):
        del options
        commands.append(command)
        flags, directory = command[3:-2], Path(command[-1])
        if flags[-1] == "13":
            return subprocess.CompletedProcess(command, 3, "", "reward is nan")
        write_run(directory, flags, [alike(1.0, task_names(flags[1]))])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(training_runs.subprocess, "run", run)
    return commands


def run_of(folder, seed):
    return training_runs.Run(folder / str(seed), ("--env", "toy", "--seed", str(seed)))


def test_only_what_is_missing_is_trained_and_what_was_interrupted_again(tmp_path, started):
    runs = [run_of(tmp_path, seed) for seed in range(3)]
    training_runs.train(runs[:1], jobs=1)
    (tmp_path / "1.partial").mkdir()
    training_runs.train(runs, jobs=2)
    assert sorted(command[-3] for command in started) == ["0", "1", "2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_a_run_of_other_flags_is_refused(tmp_path, started):
    training_runs.train([run_of(tmp_path, 0)], jobs=1)
    other = training_runs.Run(tmp_path / "0", ("--env", "mt10"))
    with pytest.raises(ValueError, match="was trained with --env toy --seed 0, expected --env mt10"):
        training_runs.train([other], jobs=1)
    assert len(started) == 1


def test_a_failure_is_told_and_ends_the_comparison(tmp_path, started):
    with pytest.raises(RuntimeError, match=r"(?s)ended with code 3:.*reward is nan"):
        training_runs.train([run_of(tmp_path, seed) for seed in (13, 0, 1, 2, 3)], jobs=1)
    assert started
    assert not (tmp_path / "13").exists()


def compare(monkeypatch, folder, *groups):
    argv = ["--env", "toy", "--runs", str(folder), "--seeds", "2", "--groups", *groups, "--", "--aggregator", "dibs"]
    monkeypatch.setattr("sys.argv", ["compare_groups.py", *argv])
    compare_groups.main()


def test_groups_of_the_command_line_are_trained_and_printed(capsys, monkeypatch, started, tmp_path):
    compare(monkeypatch, tmp_path, "reach-east,reach-west", "reach-south", "reach-north")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1:3] for line in lines[-3:]] == [
        [" joint ", " 1 "],
        [" reach-east reach-west; reach-south; reach-north ", " 3 "],
        [" separate ", " 4 "],
    ]
    assert any("--runs DIR --seeds 2" in line for line in lines)
    assert len(started) == 2 * (1 + 1 + 4)  # the single tasks of the groups are those of the last row
    assert all(command[7:9] == ["--aggregator", "dibs"] for command in started)


@pytest.mark.parametrize("groups", [("reach-east,reach-west",), ("reach-east,reach-north", "reach-east,reach-west")])
def test_groups_that_are_no_partition_are_refused(capsys, monkeypatch, started, tmp_path, groups):
    with pytest.raises(SystemExit):
        compare(monkeypatch, tmp_path, *groups)
    assert (
        "expected every task of toy once: reach-east, reach-north, reach-west, reach-south" in capsys.readouterr().err
    )
    assert not started


def test_a_failed_training_is_one_sentence(capsys, monkeypatch, started, tmp_path):
    monkeypatch.setattr("sys.argv", ["toy_claims.py", "--runs", str(tmp_path), "--seeds", "1"])
    (tmp_path / "toy-mean-0").mkdir()
    start = {"command": ["python", "train.py", "--env", "mt10", "--run-dir", "x"]}
    (tmp_path / "toy-mean-0" / "environment.json").write_text(json.dumps([start]))
    with pytest.raises(SystemExit) as caught:
        toy_claims.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'toy-mean-0'} was trained with --env mt10, expected")
    assert not started
