"""Grouping the tasks of a run, as it is started: command line in; table and commands out."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from mtrl import cli, envs, train
from mtrl.group import main, read, read_all

TASKS = ["reach-east", "reach-north", "reach-west", "reach-south"]

TRAINING = [
    *("--env", "toy", "--seed", "2", "--goal-seed", "3", "--envs-per-task", "3", "--total-steps", "500"),
    *("--warmup-steps", "20", "--eval-every", "0", "--log-every", "100", "--checkpoint-every", "0", "--device", "cpu"),
    *("--agent.batch-size", "8", "--network.hidden-dims", "8", "--critic.aggregator", "aligned"),
    *("--critic.aggregator.weights", "1", "2", "3", "4", "--actor.aggregator", "graddrop"),
    *("--actor.aggregator.leaks", "0", "0.1", "0.2", "0.3"),
]

# East and west help each other, so do north and south; [source][target].
PAIRED = [[0.9, -0.2, 0.3, -0.2], [-0.1, 0.9, -0.3, 0.2], [0.5, -0.1, 0.9, -0.1], [-0.2, 0.4, -0.1, 0.9]]


@contextmanager
def as_before() -> Iterator[None]:
    """Give back what training sets in the process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    variables = dict(os.environ)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.environ.clear()
    os.environ.update(variables)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "toy-run"
    with as_before():
        assert train.main([*TRAINING, "--run-dir", str(run)]) == 0
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the run, in a folder whose name must be quoted."""
    return Path(shutil.copytree(trained, tmp_path / "my runs" / "toy-run"))


def measure(run: Path, *records: dict) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        for record in records:
            file.write(json.dumps({"kind": "train", "step": 500, "time": 0.0} | record) + "\n")


def imagined(folder: Path, env: str, *argv: str) -> Path:
    """Write what of a run on any environment counts here."""
    run = folder / "run"
    run.mkdir()
    (run / "config.yaml").write_text(cli.parse(["--env", env, *argv]).to_yaml())
    return run


def commands_of(run: Path, groups: int) -> list[list[str]]:
    lines = (run / "groups" / f"{groups}.sh").read_text().splitlines()
    return [shlex.split(line) for line in lines if line.startswith("python -m mtrl.train ")]


def error_of(capsys, *argv: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in argv])
    assert caught.value.code == 2
    return capsys.readouterr().err


# ---- the table


def test_the_table_shows_groups_values_scores_and_who_serves_whom(capsys, run):
    measure(run, {"critic_transference": PAIRED})
    assert main([str(run), "--groups", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "toy-run: transference of critic, 1 record, steps 500 to 500"
    # together, onto east: (-0.1 + 0.5 - 0.2) / 3; mean of pairs: (0.5 + 0.4 + 0.3 + 0.2) / 4
    assert [line.split() for line in lines[1:7]] == [
        ["task", "group", "1", "group", "2", "served", "by", "best", "together"],
        ["reach-east", "0.5", "-", "group", "1", "0.5", "0.0667"],
        ["reach-north", "-", "0.4", "group", "2", "0.4", "0.0333"],
        ["reach-west", "0.3", "-", "group", "1", "0.3", "-0.0333"],
        ["reach-south", "-", "0.2", "group", "2", "0.2", "-0.0333"],
        ["mean", "0.35", "0.00833"],
    ]
    assert lines[7] == "proven to be the best choice for these numbers"
    assert lines[8:10] == [shlex.join(command) for command in commands_of(run, 2)]
    assert lines[10] == f"written to {run}/groups/2.sh"


def test_without_time_the_table_says_what_is_not_proven(capsys, tmp_path):
    run = imagined(tmp_path, "mt10")
    affinity = np.random.default_rng(2).normal(0, 0.1, (10, 10))
    measure(run, {"critic_transference": affinity.tolist()})
    assert main([str(run), "--groups", "3", "--seconds", "1e-9"]) == 0
    assert "not proven to be the best choice; none exceeds a mean of 0." in capsys.readouterr().out


def test_a_task_may_train_alone_where_that_has_a_value(run):
    measure(run, {"critic_transference": PAIRED})
    main([str(run), "--groups", "4", "--alone", "0.45"])
    # 0.45 is below what west does for east (0.5), and above what the others get
    assert [command[6] for command in commands_of(run, 4)] == [
        "toy:reach-east,reach-west",
        "toy:reach-north",
        "toy:reach-west",
        "toy:reach-south",
    ]


# ---- what is read


def test_records_are_averaged_entry_by_entry(run):
    first, second = (np.array(PAIRED) + shift for shift in (0.0, 0.2))
    holed = second.tolist()
    holed[0][1] = None
    measure(run, {"critic_transference": first.tolist()}, {"critic_loss": 1.0}, {"critic_transference": holed})
    measure(run, {"kind": "evaluation", "critic_transference": None})
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 500, "critic_transf')  # cut off
    expected = np.array(PAIRED) + 0.1
    expected[0, 1] = PAIRED[0][1]
    measured = read(run, TASKS, "critic")
    assert measured.num_records == 2
    assert measured.affinity == pytest.approx(expected)


def test_early_records_can_be_left_out(run):
    matrices = {step: (np.array(PAIRED) * step).tolist() for step in (100, 200, 300)}
    measure(run, *({"step": step, "critic_transference": matrix} for step, matrix in matrices.items()))
    measured = read(run, TASKS, "critic", from_step=200)
    assert measured[1:] == (2, 200, 300)
    assert measured.affinity == pytest.approx(np.array(PAIRED) * 250)


def test_several_runs_count_the_same_however_many_records_they_have(capsys, run, tmp_path):
    other = imagined(tmp_path, "toy")
    matrix = np.arange(16.0).reshape(4, 4)
    measure(run, {"critic_transference": (3 * matrix).tolist()}, {"critic_transference": matrix.tolist()})
    measure(other, {"critic_transference": (4 * matrix).tolist(), "step": 700})
    found = read_all([run, other], TASKS, "critic")
    assert np.array_equal(found.affinity, 3 * matrix)  # ((3 + 1) / 2 + 4) / 2
    assert found[1:] == (3, 500, 700)
    assert main([str(run), str(other), "--groups", "2"]) == 0
    assert "toy-run and 1 more: transference of critic, 3 records, steps 500 to 700" in capsys.readouterr().out
    assert len(commands_of(run, 2)) == 2
    assert not (other / "groups").exists()


def test_runs_of_other_tasks_are_refused(capsys, run, tmp_path):
    other = imagined(tmp_path, "toy:reach-east,reach-north")
    measure(run, {"critic_transference": PAIRED})
    said = error_of(capsys, run, other, "--groups", "2")
    assert "has other tasks" in said
    assert "reach-south" in said


def test_no_run_is_refused(capsys):
    assert "RUNS is missing" in error_of(capsys, "--groups", "2")


def test_what_a_run_really_measured_is_grouped(capsys, tmp_path):
    run = tmp_path / "measured"
    with as_before():
        assert train.main([*TRAINING, "--transference-every", "2", "--run-dir", str(run)]) == 0
    capsys.readouterr()
    assert main([str(run), "--groups", "2"]) == 0
    printed = capsys.readouterr().out
    # Vector steps of 12; the first record holds the last random step's one update, before any measurement.
    assert re.search(r"measured: transference of critic, \d records, steps \d+ to 504", printed)
    assert 1 <= len(commands_of(run, 2)) <= 2


def test_both_parts_count_as_much_whatever_their_size(run):
    actor = np.array(PAIRED).T * 1000
    measure(run, {"critic_transference": PAIRED, "actor_transference": actor.tolist()})
    assert read(run, TASKS, "actor").affinity == pytest.approx(actor)
    # the mean absolute value between tasks is 2.7 / 12 in either, times 1000
    assert read(run, TASKS, "both").affinity == pytest.approx((np.array(PAIRED) + np.array(PAIRED).T) / 2 / (2.7 / 12))


# ---- the commands


def test_commands_train_a_group_as_the_run_trained(run):
    measure(run, {"critic_transference": PAIRED})
    main([str(run), "--groups", "2"])
    whole = cli.load(run)
    pair, other = [cli.parse(words[3:]) for words in commands_of(run, 2)]
    assert (pair.env, other.env) == ("toy:reach-east,reach-west", "toy:reach-north,reach-south")
    assert pair.critic_aggregator_config.weights == (1, 3)
    assert other.critic_aggregator_config.weights == (2, 4)
    assert pair.actor_aggregator_config.leaks == (0, 0.2)
    # 500 steps of 4 tasks x 3 environments are 41.7 vector steps; 42 of 2 x 3 environments are 252 steps
    assert (pair.trainer.total_steps, pair.trainer.log_every, pair.trainer.eval_every) == (252, 54, 0)
    assert pair.trainer.run_dir == run.parent / "toy-run-group-1-of-2"
    assert other.trainer.run_dir == run.parent / "toy-run-group-2-of-2"
    changed = {"env", "total_steps", "log_every", "critic.aggregator.weights", "actor.aggregator.leaks"}
    lines = [yaml.safe_load(settings.to_yaml()) for settings in (whole, pair)]
    assert {key for key in lines[0] if lines[0][key] != lines[1][key]} == changed


@pytest.mark.parametrize(
    ("env", "suite"),
    [("mt10", "mt10"), ("mt25", "mt25"), ("mt10:push-v3,reach-v3,door-open-v3", "mt10"), ("push-v3,reach-v3", "mt50")],
)
def test_goals_stay_those_of_the_run(tmp_path, env, suite):
    run = imagined(tmp_path, env, "--goal-seed", "7")
    tasks = envs.task_names(env)
    affinity = np.random.default_rng(0).normal(0, 0.1, (len(tasks), len(tasks)))
    measure(run, {"critic_transference": affinity.tolist()})
    main([str(run), "--groups", "2"])
    found = [cli.parse(words[3:]) for words in commands_of(run, 2)]
    assert {name for settings in found for name in envs.task_names(settings.env)} == set(tasks)
    for settings in found:
        members = envs.task_names(settings.env)
        assert envs.parse(settings.env)[0] == suite
        assert list(members) == [name for name in tasks if name in members]
        assert settings.trainer.goal_seed == 7
        assert settings.trainer.total_steps == 2_000_000 * len(members)


def test_a_run_of_one_task_is_its_group(tmp_path):
    run = imagined(tmp_path, "mt1:reach-v3")
    measure(run, {"critic_transference": [[0.4]]})
    main([str(run), "--groups", "1"])
    (command,) = commands_of(run, 1)
    assert cli.parse(command[3:]).env == "mt1:reach-v3"


def test_a_command_trains(run):
    measure(run, {"critic_transference": PAIRED})
    main([str(run), "--groups", "2"])
    command = commands_of(run, 2)[1]
    with as_before():
        assert train.main(command[3:]) == 0
    records = (run.parent / "toy-run-group-2-of-2" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(records[-1])["step"] == 252
    assert "train_success/reach-south" in json.loads(records[-1])


def test_the_file_is_a_script(run):
    measure(run, {"critic_transference": PAIRED})
    main([str(run), "--groups", "2"])
    assert subprocess.run(["sh", "-n", run / "groups" / "2.sh"], check=False).returncode == 0
    assert [file.name for file in (run / "groups").iterdir()] == ["2.sh"]


# ---- refusals


def test_a_folder_that_is_no_run_is_refused(capsys, tmp_path):
    assert f"{tmp_path} is no run" in error_of(capsys, tmp_path, "--groups", 2)


def test_a_run_that_measured_nothing_is_told_the_flag(capsys, run):
    assert "has no record of critic transference; training writes them with --transference-every N" in error_of(
        capsys, run, "--groups", 2
    )
    measure(run, {"critic_transference": PAIRED})
    assert "no record of actor transference" in error_of(capsys, run, "--groups", 2, "--part", "actor")
    assert "no record of critic and actor trans" in error_of(capsys, run, "--groups", 2, "--part", "both")
    assert "from step 501 on" in error_of(capsys, run, "--groups", 2, "--from-step", 501)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--groups", "0"], "--groups: expected 1 to 4, the number of tasks of"),
        (["--groups", "5"], "got 5"),
        (["--groups", "2", "--part", "policy"], "critic"),
        (["--groups", "2", "--from-step", "-1"], "--from-step: expected at least 0, got -1"),
        (["--groups", "2", "--alone", "nan"], "--alone: expected a finite number"),
        (["--groups", "2", "--seconds", "0"], "--seconds: expected a positive number"),
        ([], "--groups"),
    ],
)
def test_what_cannot_be_chosen_is_refused(capsys, run, argv, message):
    measure(run, {"critic_transference": PAIRED})
    assert message in error_of(capsys, run, *argv)
    assert not (run / "groups").exists()


def test_a_pair_that_was_never_measured_is_named(capsys, run):
    holed = [[None if (s, t) in ((0, 1), (2, 3)) else PAIRED[s][t] for t in range(4)] for s in range(4)]
    measure(run, {"critic_transference": holed}, {"critic_transference": holed})
    expected = "no record has a finite critic transference of reach-east on reach-north, reach-west on reach-south\n"
    assert expected in error_of(capsys, run, "--groups", 2)


def test_a_matrix_of_other_tasks_is_refused(capsys, run):
    measure(run, {"critic_transference": [row[:3] for row in PAIRED[:3]]})
    assert "is not a matrix of the 4 tasks of the run" in error_of(capsys, run, "--groups", 2)


def test_a_group_whose_weights_are_all_zero_is_refused(capsys, tmp_path):
    run = imagined(tmp_path, "toy", "--critic.aggregator.weights", "1", "0", "1", "0")
    measure(run, {"critic_transference": PAIRED})
    assert "weights are 0 for all of reach-north, reach-south" in error_of(capsys, run, "--groups", 2)


def test_a_folder_that_cannot_be_written_is_refused(capsys, run):
    measure(run, {"critic_transference": PAIRED})
    (run / "groups").write_text("a file where the folder would be")
    assert "cannot write" in error_of(capsys, run, "--groups", 2)
