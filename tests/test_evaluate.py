"""Evaluating a run, as it is started: command line in; exit code, record and table out."""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from mtrl import checkpoint, cli, train
from mtrl.agents.mtsac import MTSAC
from mtrl.assembly import make_agent, make_env
from mtrl.envs.toy import Toy
from mtrl.envs.workers import WorkerError
from mtrl.evaluate import main
from mtrl.evaluator import evaluate_env

TASKS = ["reach-east", "reach-north", "reach-west", "reach-south"]

TRAINING = [
    *("--env", "toy", "--goal-seed", "3", "--envs-per-task", "1", "--total-steps", "400", "--warmup-steps", "20"),
    *("--eval-every", "0", "--checkpoint-every", "200", "--device", "cpu", "--agent.batch-size", "8"),
    *("--network.hidden-dims", "8"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Run all episodes side by side, and give back the variable that a run sets."""
    monkeypatch.setattr("mtrl.evaluator.ENVS_AT_ONCE", 200)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def unchanged_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with checkpoints of the steps 200 and 400."""
    run = tmp_path_factory.mktemp("runs") / "toy-run"
    before = dict(os.environ)
    with unchanged_handlers():
        assert train.main([*TRAINING, "--run-dir", str(run)]) == 0
    os.environ.clear()
    os.environ.update(before)
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the run, made of links to its files."""
    copy = tmp_path / "toy-run"
    for file in trained.rglob("*"):
        if file.is_file():
            target = copy / file.relative_to(trained)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(file)
    return copy


def digests(run: Path) -> dict[str, str]:
    files = [path for path in run.rglob("*") if path.is_file() and path.parent.name != "evaluations"]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def records(run: Path) -> dict[str, dict]:
    folder = run / "evaluations"
    return {path.name: json.loads(path.read_text()) for path in folder.iterdir()} if folder.exists() else {}


def only_record(run: Path) -> dict:
    (record,) = records(run).values()
    return record


def error_of(capsys, *argv: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in argv])
    assert caught.value.code == 2
    return capsys.readouterr().err


# ---- everything, once


def test_every_goal_of_every_task_is_recorded_once_as_the_evaluator_finds_it(run):
    assert main([str(run)]) == 0
    record = records(run)["000000000400.json"]
    episodes = record["episodes"]
    assert [(episode["task"], episode["goal"]) for episode in episodes] == [(t, g) for t in TASKS for g in range(50)]
    settings = cli.load(run)
    env = make_env(settings, envs_per_task=50)  # the same shapes, hence the same rounding, as in the evaluation
    agent = make_agent(settings, env.spec, torch.device("cpu"))
    agent.load_state_dict(checkpoint.load(run / "checkpoints" / "000000000400", "agent"))
    expected = evaluate_env(env, lambda obs: agent.act_deterministic(torch.from_numpy(obs)).numpy(), np.arange(50))
    assert [episode["return"] for episode in episodes] == expected.returns.flatten().tolist()
    assert [episode["success"] for episode in episodes] == expected.success.flatten().tolist()
    assert [record["tasks"][task]["return"] for task in TASKS] == pytest.approx(expected.returns.mean(1).tolist())
    assert record["mean"]["num_episodes"] == 200


def test_the_record_says_what_was_evaluated(run):
    main([str(run)])
    record = only_record(run)
    expected = {
        "run": "toy-run",
        "step": 400,
        "env": "toy",
        "goal_seed": 3,
        "policy": "deterministic",
        "is_whole": True,
    }
    assert {name: record[name] for name in expected} == expected
    assert record["environment"]["versions"]["torch"] == torch.__version__


def test_the_table_has_a_line_per_task_and_one_for_the_mean(capsys, run):
    main([str(run)])
    output, progress = capsys.readouterr()
    lines = output.splitlines()
    assert lines[0] == "toy-run, step 400: deterministic policy, 50 goals per task"
    assert [line.split()[0] for line in lines[2:7]] == [*TASKS, "mean"]
    assert lines[7] == f"written to {run}/evaluations/000000000400.json"
    assert progress.startswith("0/200 episodes\n")
    assert progress.endswith("200/200 episodes | 0s left\n")


def test_what_training_left_is_not_touched(run):
    before = digests(run)
    main([str(run)])
    assert digests(run) == before


def test_the_checkpoint_can_be_chosen(run):
    main([str(run), "--checkpoint", "200"])
    main([str(run)])
    early, late = records(run)["000000000200.json"], records(run)["000000000400.json"]
    assert early["step"] == 200
    assert early["mean"]["return"] != late["mean"]["return"]


# ---- a part


def test_a_part_never_takes_the_place_of_the_whole(run):
    main([str(run)])
    whole = run / "evaluations" / "000000000400.json"
    before = whole.read_bytes()
    for part in (["--task", "reach-east"], ["--goals", "2"], ["--stochastic", "--goals", "1"]):
        main([str(run), *part])
    assert whole.read_bytes() == before
    assert [record["is_whole"] for record in records(run).values()].count(False) == 3


def test_a_part_written_over_a_whole_one_by_name_is_refused(capsys, run):
    main([str(run)])
    whole = run / "evaluations" / "000000000400.json"
    assert "holds a whole evaluation" in error_of(capsys, run, "--goals", 2, "--json", whole)
    assert main([str(run), "--json", str(whole)]) == 0  # a whole one may


def test_tasks_and_goals_of_a_part_have_the_results_they_have_in_the_whole(run):
    main([str(run)])
    whole = only_record(run)["episodes"]
    main(
        [str(run), "--task", "reach-west,reach-north", "--task", "reach-west", "--goals", "3", "--json", str(run / "x")]
    )
    part = json.loads((run / "x").read_text())["episodes"]
    expected = [e for e in whole if e["task"] in ("reach-north", "reach-west") and e["goal"] < 3]
    assert [(e["task"], e["goal"]) for e in part] == [(e["task"], e["goal"]) for e in expected]
    # Other numbers of copies side by side may round differently: float32 through 50 steps.
    assert [e["return"] for e in part] == pytest.approx([e["return"] for e in expected], rel=1e-4)


def test_all_tasks_by_name_are_the_whole(run):
    main([str(run), "--task", ",".join(reversed(TASKS)), "--goals", "50"])
    assert list(records(run)) == ["000000000400.json"]
    assert list(only_record(run)["tasks"]) == TASKS


# ---- sampled actions


def sampled_returns(run: Path, *argv: str) -> list[float]:
    main([str(run), "--stochastic", "--goals", "2", *argv, "--json", str(run / "sampled.json")])
    return [episode["return"] for episode in json.loads((run / "sampled.json").read_text())["episodes"]]


def test_sampled_episodes_follow_their_seed_and_differ_within_a_goal(run):
    first = sampled_returns(run, "--episodes", "3")
    assert len(first) == 4 * 2 * 3
    assert len(set(first)) == len(first)
    assert sampled_returns(run, "--episodes", "3", "--seed", "0") == first
    assert sampled_returns(run, "--episodes", "3", "--seed", "1") != first


# ---- refusals


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--task", "reach-nort"], "Did you mean 'reach-north'?"),
        (["--goals", "51"], "--goals: expected at most 50, the goals of a task of toy, got 51"),
        (["--goals", "0"], "--goals: expected at least 1, got 0"),
        (["--workers", "0"], "--workers: expected at least 1, got 0"),
        (["--episodes", "2"], "--episodes 2 needs --stochastic: the deterministic policy repeats"),
        (["--seed", "1"], "--seed needs --stochastic"),
        (["--checkpoint", "300"], "has no checkpoint of step 300, only of 200, 400"),
        (["--json", "missing/file.json"], "--json: expected a file in a folder that exists"),
        (["--goal", "3"], "--goals"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_starts(capsys, monkeypatch, run, argv, message):
    monkeypatch.setattr(Toy, "step", None)
    assert message in error_of(capsys, run, *argv)
    assert not records(run)


def test_a_folder_that_is_no_run_is_refused(capsys, tmp_path):
    assert f"{tmp_path} is no run" in error_of(capsys, tmp_path)


def test_a_run_without_a_checkpoint_is_refused(capsys, run):
    shutil.rmtree(run / "checkpoints")
    assert "has no complete checkpoint yet" in error_of(capsys, run)


def test_a_checkpoint_of_other_networks_is_refused(capsys, run):
    config = run / "config.yaml"
    text = config.read_text().replace("network.hidden_dims: [8]", "network.hidden_dims: [9]")
    config.unlink()
    config.write_text(text)
    assert "shape" in error_of(capsys, run)


def test_a_run_directory_that_cannot_be_written_is_code_2(capsys, run):
    (run / "evaluations").write_text("a file where the folder would be")
    assert "name another file with --json" in error_of(capsys, run, "--goals", 1)


# ---- ends before the end


def at_step(monkeypatch, number: int, act) -> None:
    """Call `act` at the vector step of that number."""
    step, count = Toy.step, iter(range(1, 10**9))

    def counting(self, action):
        if next(count) == number:
            act()
        return step(self, action)

    monkeypatch.setattr(Toy, "step", counting)


@pytest.fixture
def python_handles_ctrl_c():
    """As in a process of its own, whatever tests before have installed or the shell ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_is_code_130_and_leaves_no_file(capsys, monkeypatch, run):
    at_step(monkeypatch, 30, lambda: signal.raise_signal(signal.SIGINT))
    assert main([str(run)]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (run / "evaluations").exists()


def test_failed_environments_are_code_4_and_leave_no_file(capsys, monkeypatch, run):
    def fail():
        raise WorkerError("task 'reach-east', env 0: failed in worker 0")

    at_step(monkeypatch, 30, fail)
    assert main([str(run)]) == 4
    assert "error: task 'reach-east', env 0: failed" in capsys.readouterr().err
    assert not (run / "evaluations").exists()


def test_an_action_that_is_no_number_is_code_3_and_leaves_no_file(capsys, monkeypatch, run):
    act = MTSAC.act_deterministic
    monkeypatch.setattr(MTSAC, "act_deterministic", lambda self, obs: act(self, obs) * float("nan"))
    assert main([str(run)]) == 3
    assert "error: action of task 'reach-east', environment 0" in capsys.readouterr().err
    assert not (run / "evaluations").exists()
