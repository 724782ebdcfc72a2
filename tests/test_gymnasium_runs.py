"""Whole runs on Gymnasium environments of different sizes: train, continue, evaluate, group; and how they fail."""

import json
import shlex
from pathlib import Path

import pytest

from mtrl import cli, evaluate, group
from mtrl.checkpoint import latest, load
from mtrl.flags import MODULES
from mtrl.train import main
from tests.envs.gymnasium_fakes import __name__ as fakes
from tests.small_runs import assert_same_state
from tests.test_train import TINY, records, steps_saved, unchanged_process  # noqa: F401 - a fixture

TASKS = (f"{fakes}:fakes/Pendulum-v0", f"{fakes}:fakes/Car-v0")

# Episodes have 50 and 30 steps. After 97 steps of each both are saved in the middle of one.
TRAINING = [
    *("--env", f"gymnasium:{','.join(TASKS)}", "--aggregator", "aligned", "--warmup-steps", "90"),
    *("--eval-every", "220", "--eval-goals", "1", "--log-every", "110", "--transference-every", "5", *TINY),
]

FEW_STEPS = ["--warmup-steps", "2", "--eval-every", "0", "--workers", "1", *TINY]


@pytest.fixture(autouse=True)
def one_task_at_a_time(monkeypatch) -> None:
    """Evaluate as a suite of many tasks is evaluated: a part of them, as wide as all."""
    monkeypatch.setattr("mtrl.evaluator.ENVS_AT_ONCE", 1)


@pytest.fixture(autouse=True)
def modules_that_runs_may_name(monkeypatch) -> None:
    monkeypatch.setenv(MODULES, f"gone,{fakes}")


def everything(run: Path) -> list:
    checkpoint = latest(run / "checkpoints")
    assert checkpoint is not None
    return [load(checkpoint, part) for part in ("agent", "replay", "env", "trainer")]


def test_a_run_is_continued_evaluated_and_grouped(tmp_path, capsys):
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert main([*TRAINING, "--total-steps", "194", "--workers", "1", "--run-dir", str(parts)]) == 0
    assert main(["--resume", str(parts), "--total-steps", "220", "--workers", "2"]) == 0
    assert main([*TRAINING, "--total-steps", "220", "--workers", "2", "--run-dir", str(whole)]) == 0
    assert_same_state(everything(parts), everything(whole))
    (last,) = records(whole, "evaluation")
    assert last | {"time": 0} == records(parts, "evaluation")[-1] | {"time": 0}
    assert -815 < last[f"return/{TASKS[0]}"] < -1  # 50 steps that cost 0 to 16.3 each

    assert evaluate.main([str(whole), "--goals", "2"]) == 0
    assert evaluate.main([str(whole), "--goals", "2", "--task", TASKS[1]]) == 0
    found = [json.loads(file.read_text())["episodes"] for file in (whole / "evaluations").iterdir()]
    one, both = sorted(found, key=len)
    assert len(both) == 4
    assert one == [episode for episode in both if episode["task"] == TASKS[1]]

    capsys.readouterr()
    group.main([str(whole), "--groups", "2", "--alone", "0.5"])
    commands = [line for line in (whole / "groups" / "2.sh").read_text().splitlines() if line.startswith("python")]
    named = [cli.parse(shlex.split(command)[3:]).env for command in commands]
    assert sorted(named) == [f"gymnasium:{task}" for task in sorted(TASKS)]


def test_a_reward_that_is_not_finite_is_code_3_and_named(tmp_path, capsys):
    argv = ["--env", f"gymnasium:Pendulum-v1,{fakes}:fakes/Broken-v0", *FEW_STEPS, "--run-dir", str(tmp_path / "run")]
    assert main([*argv, "--total-steps", "20"]) == 3
    assert f"reward of task '{fakes}:fakes/Broken-v0', environment 0 is inf, after 0 " in capsys.readouterr().err


def test_a_run_whose_environment_its_seed_does_not_determine_trains_and_is_not_continued(tmp_path, capsys):
    run = tmp_path / "run"
    argv = ["--env", f"gymnasium:{fakes}:fakes/Unseeded-v0", *FEW_STEPS, "--run-dir", str(run)]
    assert main([*argv, "--total-steps", "7"]) == 0  # three steps into the second episode of four
    assert steps_saved(run) == 7
    assert main(["--resume", str(run), "--total-steps", "9"]) == 4
    assert "is not deterministic given its seed" in capsys.readouterr().err


def test_a_run_whose_environment_begins_differently_every_time_trains(tmp_path):
    argv = ["--env", f"gymnasium:{fakes}:fakes/UnseededReset-v0", *FEW_STEPS, "--run-dir", str(tmp_path / "run")]
    assert main([*argv, "--total-steps", "7"]) == 0


def test_an_environment_that_does_not_fit_is_code_2_and_leaves_nothing(tmp_path, capsys):
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as caught:
        main(["--env", "gymnasium:CartPole-v1", *FEW_STEPS, "--run-dir", str(run)])
    assert caught.value.code == 2
    assert "'CartPole-v1' has the action space Discrete(2); expected a Box" in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.parametrize("program", [lambda run: main(["--resume", run]), lambda run: evaluate.main([run])])
def test_a_run_whose_module_is_not_found_any_more_is_code_2(tmp_path, capsys, program):
    settings = cli.parse(["--env", "toy", *TINY]).to_yaml()
    (tmp_path / "config.yaml").write_text(settings.replace("env: toy\n", "env: gymnasium:gone:Slope-v0\n"))
    with pytest.raises(SystemExit) as caught:
        program(str(tmp_path))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert f"--env (in {tmp_path / 'config.yaml'}): Gymnasium environment 'gone:Slope-v0': cannot import" in said
