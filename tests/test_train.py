"""Whole runs, as they are started: command line in; exit code, run directory and printed lines out."""

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mtrl import assembly, cli
from mtrl.agents.mtsac import MTSAC
from mtrl.checkpoint import latest, load
from mtrl.signals import HANDLED
from mtrl.train import main
from tests.envs.harness import wait_until_gone
from tests.test_signals import CODES

TINY = ["--device", "cpu", "--network.hidden-dims", "8", "--agent.batch-size", "8"]

TOY = [
    *("--env", "toy", "--envs-per-task", "1", "--total-steps", "400", "--warmup-steps", "50"),
    *("--eval-every", "200", "--eval-goals", "2", "--log-every", "200", *TINY),
]

MUJOCO = [
    *("--env", "mt10:reach-v3,drawer-close-v3", "--workers", "2", "--warmup-steps", "20"),
    *("--eval-every", "0", "--log-every", "100", *TINY),
]


@pytest.fixture(autouse=True)
def unchanged_process(monkeypatch) -> Iterator[None]:
    """Give back what a run takes over for the process it runs in."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    threads = torch.get_num_threads()
    monkeypatch.setattr(logging.getLogger("mtrl"), "handlers", [])
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def run_dir(tmp_path) -> Path:
    return tmp_path / "run"


def start(*argv: object) -> subprocess.Popen[str]:
    """Start a run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mtrl.train", *map(str, argv)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def records(run_dir: Path, kind: str) -> list[dict]:
    file = run_dir / "metrics.jsonl"
    lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    return [line for line in lines if line["kind"] == kind]


def steps_saved(run_dir: Path) -> int:
    checkpoint = latest(run_dir / "checkpoints")
    assert checkpoint is not None
    return load(checkpoint, "trainer")["step_count"]


# ---- a run that ends by itself


@pytest.mark.parametrize(("aggregator", "network"), [("mean", "mlp"), ("aligned", "multi_head")])
def test_a_run_leaves_a_directory_that_tells_everything(capsys, run_dir, aggregator, network):
    argv = [*TOY, "--aggregator", aggregator, "--network", network, "--run-dir", str(run_dir)]
    assert main(argv) == 0
    assert [line["step"] for line in records(run_dir, "train")] == [200, 400]
    assert [line["step"] for line in records(run_dir, "evaluation")] == [200, 400]
    assert steps_saved(run_dir) == 400
    assert list(run_dir.glob("events.out.*"))
    (first,) = json.loads((run_dir / "environment.json").read_text())
    assert first["versions"]["torch"] == torch.__version__
    assert capsys.readouterr().err == ""


def test_the_saved_settings_start_the_same_run_again(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*TOY, "--run-dir", str(first)]) == 0
    assert main(["--preset", str(first / "config.yaml"), "--run-dir", str(second)]) == 0
    for a, b in zip(records(first, "evaluation"), records(second, "evaluation"), strict=True):
        assert a | {"time": 0} == b | {"time": 0}
    assert cli.load(first).agent_config == cli.load(second).agent_config


def test_what_the_run_costs_and_where_it_writes_is_said_first(capsys, run_dir):
    main([*TOY, "--run-dir", str(run_dir)])
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"4 tasks x 1 environments, learner on cpu, replay of 20,000 .* MiB on cpu", lines[0])
    assert re.fullmatch(
        r"one update takes .* ms .* 400 environment steps will take at most about .*, evaluations .*", lines[1]
    )
    assert str(run_dir) in lines[2]
    assert lines[-1].startswith("time: ")


@pytest.mark.parametrize("takes_long", [True, False])
def test_what_takes_long_is_said(monkeypatch, run_dir, takes_long):
    said = threading.Event()
    monkeypatch.setattr("mtrl.train.PATIENCE_SECONDS", 0.01 if takes_long else 3600.0)
    monkeypatch.setattr("mtrl.loggers.say", lambda line: "building the environments" in line and said.set())
    make_env = assembly.make_env

    def make_slowly(settings):
        assert said.wait(10 if takes_long else 0.05) == takes_long
        return make_env(settings)

    monkeypatch.setattr("mtrl.assembly.make_env", make_slowly)
    assert main([*TOY, "--total-steps", "20", "--eval-every", "0", "--run-dir", str(run_dir)]) == 0


def test_a_method_that_needs_positive_losses_is_said_to_serve_the_critic_first_and_once(capsys, run_dir):
    assert main([*TOY, "--aggregator", "famo", "--run-dir", str(run_dir)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("famo needs positive losses, and an actor's are negative: critic famo, actor mean\n")
    assert said.count("needs positive losses") == 1


def test_threads_are_those_asked_for(run_dir):
    torch.set_num_threads(2)
    assert main([*TOY, "--threads", "1", "--run-dir", str(run_dir)]) == 0
    assert torch.get_num_threads() == 1


def test_a_run_without_evaluations_only_trains(run_dir):
    assert main([*TOY, "--eval-every", "0", "--run-dir", str(run_dir)]) == 0
    assert not records(run_dir, "evaluation")


# ---- resuming


def test_resuming_with_a_larger_budget_equals_one_run(tmp_path):
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert main([*TOY, "--total-steps", "200", "--run-dir", str(parts)]) == 0
    assert main(["--resume", str(parts), "--total-steps", "400"]) == 0
    assert main([*TOY, "--run-dir", str(whole)]) == 0
    assert [line["step"] for line in records(parts, "train")] == [200, 400]
    last_of_parts, last_of_whole = records(parts, "evaluation")[-1], records(whole, "evaluation")[-1]
    assert last_of_parts | {"time": 0} == last_of_whole | {"time": 0}
    assert len(json.loads((parts / "environment.json").read_text())) == 2


def test_resuming_a_finished_run_ends_at_once(run_dir):
    argv = [*TOY, "--total-steps", "300", "--run-dir", str(run_dir)]  # between two records
    assert main(argv) == 0
    written = (run_dir / "metrics.jsonl").read_text()
    assert main(["--resume", str(run_dir)]) == 0
    assert (run_dir / "metrics.jsonl").read_text() == written
    assert steps_saved(run_dir) == 300


def test_a_run_without_a_checkpoint_cannot_be_resumed(capsys, run_dir):
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(cli.parse(TOY).to_yaml())
    with pytest.raises(SystemExit) as caught:
        main(["--resume", str(run_dir)])
    assert caught.value.code == 2
    assert f"{run_dir} has no complete checkpoint" in capsys.readouterr().err


# ---- exit codes


def test_a_wrong_flag_is_code_2_and_leaves_nothing(capsys, run_dir):
    with pytest.raises(SystemExit) as caught:
        main([*TOY, "--run-dir", str(run_dir), "--gama", "1"])
    assert caught.value.code == 2
    assert "--gama" in capsys.readouterr().err
    assert not run_dir.exists()


def test_a_replay_too_large_for_the_memory_is_code_2_and_can_be_started_again(capsys, monkeypatch, run_dir):
    with monkeypatch.context() as patch:
        patch.setattr("mtrl.replay.free_bytes", lambda device: 1000)
        with pytest.raises(SystemExit) as caught:
            main([*TOY, "--run-dir", str(run_dir)])
    assert caught.value.code == 2
    assert "--replay.capacity" in capsys.readouterr().err
    assert not run_dir.exists()
    assert main([*TOY, "--run-dir", str(run_dir)]) == 0


def not_finite_for(task: int) -> Callable:
    """Return an `update` of the agent that finds the critic's loss of one task to be no number."""
    update = MTSAC.update

    def find_nan(self, batch):
        flags = torch.zeros(len(batch.task), dtype=torch.bool)
        flags[task] = True
        return update(self, batch) | {"critic_nonfinite": flags}

    return find_nan


def test_a_loss_that_is_no_number_is_code_3_and_named(capsys, monkeypatch, run_dir):
    monkeypatch.setattr(MTSAC, "update", not_finite_for(task=2))
    assert main([*TOY, "--run-dir", str(run_dir)]) == 3
    error = capsys.readouterr().err
    assert "critic gradient of reach-west" in error
    assert (
        "204 environment steps" in error
    )  # the first update: beside the step after 50 random ones of each of the 4 tasks


def test_losses_that_are_no_numbers_can_be_skipped_and_counted(monkeypatch, run_dir, capsys):
    monkeypatch.setattr(MTSAC, "update", not_finite_for(task=2))
    assert main([*TOY, "--on-nonfinite", "skip", "--run-dir", str(run_dir)]) == 0
    # 100 vector steps, the first 50 without an update
    assert records(run_dir, "train")[-1]["skipped_updates"] == 50
    assert capsys.readouterr().out.count("critic gradient of reach-west; left out, ") == 1  # a minute did not pass


def test_a_run_that_met_such_losses_is_continued_without_them(monkeypatch, run_dir, capsys):
    assert main([*TOY, "--total-steps", "300", "--run-dir", str(run_dir)]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(MTSAC, "update", not_finite_for(task=2))
        assert main(["--resume", str(run_dir), "--total-steps", "400"]) == 3
        (advice,) = re.findall("--resume .*", capsys.readouterr().err)
        assert main([*shlex.split(advice), "--total-steps", "400"]) == 0
    assert steps_saved(run_dir) == 400
    assert "on_nonfinite: skip" in (run_dir / "config.yaml").read_text()


def test_a_run_is_not_cut_short(run_dir, capsys):
    assert main([*TOY, "--run-dir", str(run_dir)]) == 0
    before = (run_dir / "config.yaml").read_text()
    with pytest.raises(SystemExit) as caught:
        main(["--resume", str(run_dir), "--total-steps", "200"])
    assert caught.value.code == 2
    assert "--total-steps 200: the run is at step 400 already; expected more" in capsys.readouterr().err
    assert (run_dir / "config.yaml").read_text() == before


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_saves_and_the_run_can_go_on(run_dir, number, code):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # inherited; the tests may run under nohup
    run = start(*TOY, "--total-steps", 10_000_000, "--log-every", 40, "--run-dir", run_dir)
    wait_for(lambda: records(run_dir, "train"), run)
    run.send_signal(number)
    output, errors = run.communicate(timeout=20)
    assert run.returncode == code
    assert errors == "\nstopping after this step and saving; a second signal leaves without\n"
    saved = steps_saved(run_dir)
    assert f"{number.name}: saved at step {saved:,} in {run_dir}" in output
    assert main(["--resume", str(run_dir), "--total-steps", str(saved + 40)]) == 0
    assert steps_saved(run_dir) == saved + 40


# ---- Meta-World


@pytest.mark.mujoco
def test_a_few_hundred_steps_of_meta_world(run_dir):
    assert main([*MUJOCO, "--total-steps", "200", "--run-dir", str(run_dir)]) == 0
    assert [line["step"] for line in records(run_dir, "train")] == [100, 200]


@pytest.mark.mujoco
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_worker_is_replaced_and_the_run_goes_on(run_dir):
    run = start(*MUJOCO, "--total-steps", 10_000_000, "--run-dir", run_dir)
    wait_for(lambda: records(run_dir, "train"), run)
    children = children_of(run.pid)
    assert len(children) == 2
    os.kill(children[0], signal.SIGKILL)
    wait_for(lambda: records(run_dir, "train")[-1]["worker_restarts"], run)
    children += children_of(run.pid)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=20)
    assert run.returncode == 143
    assert "task 'reach-v3', env 0" in errors
    assert errors.count("killed by SIGKILL; restarted") == 1
    last = records(run_dir, "train")[-1]
    assert (last["worker_restarts"], last["invalid_steps/reach-v3"], last["invalid_steps/drawer-close-v3"]) == (1, 1, 0)
    assert wait_until_gone(children)


def children_of(pid: int) -> tuple[int, ...]:
    """Return the processes that `pid` started, the oldest first."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return tuple(sorted(int(child) for thread in threads for child in (thread / "children").read_text().split()))
