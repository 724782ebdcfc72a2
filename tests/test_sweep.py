"""Sweeps as they are started: command line in; runs, printed lines, exit codes out."""

import fcntl
import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mtrl import checkpoint, cli
from mtrl.checkpoint import by_step
from mtrl.flags import UsageError
from mtrl.launchers import Job
from mtrl.launchers.process import Process
from mtrl.sweep import main
from mtrl.sweep_loop import SweepLoop
from mtrl.sweep_plan import Run, parse_names, parse_seeds, plan
from mtrl.sweep_table import table

TOY = [
    *("--env", "toy", "--envs-per-task", "1", "--total-steps", "1600", "--warmup-steps", "50", "--device", "cpu"),
    *("--eval-every", "1600", "--eval-goals", "2", "--log-every", "400", "--checkpoint-every", "400"),
    *("--network.hidden-dims", "8", "--agent.batch-size", "8", "--transference-every", "0"),
]


def sweep(folder: Path, *argv: str) -> int:
    return main([*TOY, "--sweep-dir", str(folder), *argv])


def refusal(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    return capsys.readouterr().err


@contextmanager
def once(condition: Callable[[], object], action: Callable[[], object]) -> Iterator[None]:
    """Act beside the body as soon as the condition holds; it must do so before the body ends."""
    has_ended, has_acted = threading.Event(), threading.Event()

    def watch() -> None:
        while not has_ended.is_set():
            if condition():
                has_acted.set()
                action()
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()
    assert has_acted.is_set()


def process_of(run_dir: Path) -> int:
    """Read the lock for the process that trains there."""
    found = re.match(r"process (\d+)", (run_dir / "lock").read_text())
    assert found
    return int(found[1])


def starts_in(run_dir: Path) -> int:
    return (run_dir / "output.log").read_text().count("$ ")


# ---- whole sweeps


@pytest.mark.timeout(180)  # several processes, each of which loads torch
def test_a_killed_run_is_told_stops_no_other_and_is_continued_by_the_same_command(capsys, tmp_path):
    victim, other = tmp_path / "aligned-0", tmp_path / "mean-0"
    argv = ["--aggregators", "aligned,mean", "--seeds", "0", "--jobs", "2"]
    with once(lambda: by_step(victim / "checkpoints"), lambda: os.kill(process_of(victim), signal.SIGKILL)):
        assert sweep(tmp_path, *argv) == 1
    said = capsys.readouterr().out
    assert re.search(rf"aligned-0: killed by SIGKILL after \d+ s; see {victim}/output.log", said)
    assert "mean-0: finished" in said
    assert re.search(r"not finished: aligned-0 \(step (400|800|1,200|1,600)\)", said)

    assert sweep(tmp_path, *argv) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 of 2 runs are finished\naligned-0: continues from step ")
    assert (starts_in(victim), starts_in(other)) == (2, 1)
    assert max(by_step(victim / "checkpoints")) == 1600
    header, *rows = (
        line.split() for line in said.splitlines() if line.startswith(("aggregator", "aligned  ", "mean  "))
    )
    assert header == ["aggregator", "seed", "0", "mean", "95%", "interval", "worst", "task", "95%", "interval"]
    success = [json.loads(line) for line in (victim / "metrics.jsonl").read_text().splitlines()][-1]["success/mean"]
    assert rows[0][:4] == ["aligned", f"{success:.3f}", f"{success:.3f}", "-"]
    assert [row[0] for row in rows] == ["aligned", "mean"]

    assert sweep(tmp_path, *argv) == 0
    assert capsys.readouterr().out.startswith("2 of 2 runs are finished\n\n")
    assert (starts_in(victim), starts_in(other)) == (2, 1)


@pytest.mark.timeout(180)  # several processes, each of which loads torch
def test_ctrl_c_lets_runs_save_and_starts_no_more(capsys, tmp_path):
    first, second = tmp_path / "mean-0", tmp_path / "mean-1"
    groups = []

    def interrupt() -> None:
        groups.append(os.getpgid(process_of(first)))
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with once(lambda: by_step(first / "checkpoints"), interrupt):
        argv = ["--aggregators", "mean", "--seeds", "0:2", "--jobs", "1", "--total-steps", "100000"]
        assert sweep(tmp_path, *argv) == 130
    saved = max(by_step(first / "checkpoints"))
    assert re.search(rf"mean-0: stopped after \d+ s, saved at step {saved:,}\n", capsys.readouterr().out)
    assert f"SIGINT: saved at step {saved:,}" in (first / "output.log").read_text()
    assert not second.exists()
    assert groups != [os.getpgid(0)]  # or the terminal's Ctrl-C would reach the run a second time
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.slow
def test_a_run_that_cannot_begin_is_told_with_its_own_words(capsys, tmp_path):
    (tmp_path / "mean-0").mkdir()
    with (tmp_path / "mean-0" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sweep(tmp_path, "--aggregators", "mean", "--seeds", "0") == 1
    said = capsys.readouterr().out
    assert re.search(r"mean-0: failed with code 2 after \d+ s; see .*output.log: error: .* is in use by", said)


def test_a_second_signal_reaches_a_process(tmp_path):
    code = "import signal, time; signal.signal(2, lambda *_: (print('one', flush=True), signal.signal(2, 0))); "
    process = Process(
        Job("job", (sys.executable, "-c", code + "print('up', flush=True); time.sleep(50)"), tmp_path / "log")
    )
    for word in ("up", "one"):
        while word not in (tmp_path / "log").read_text().splitlines():
            assert process.poll() is None
        process.stop(signal.SIGINT)
    assert process.wait() != 0
    process.stop(signal.SIGINT)  # nobody is there any more


# ---- what is printed and refused before anything starts


def test_a_dry_run_prints_plain_commands_and_writes_nothing(capsys, tmp_path):
    (tmp_path / "my runs").mkdir()
    folder = tmp_path / "my runs" / "sweep"
    argv = ["--aggregators", "mean,cagrad", "--seeds", "3,7", "--cpus-per-run", "3", "--threads", "1", "--dry-run"]
    assert sweep(folder, *argv) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        [
            *("python", "-m", "mtrl.train", *TOY, "--threads", "1", "--aggregator", name, "--seed", seed),
            *("--workers", "3", "--run-dir", f"{folder}/{name}-{seed}", "--resume", "auto"),
        ]
        for seed in ("3", "7")
        for name in ("mean", "cagrad")
    ]
    settings = cli.parse(lines[1][3:])
    assert (settings.critic_aggregator, settings.trainer.seed, settings.trainer.threads) == ("cagrad", 3, 1)
    assert not folder.exists()


def test_the_folder_is_named_after_the_environment(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--env", "mt10:push-v3,reach-v3", "--aggregators", "mean", "--seeds", "0", "--dry-run"]) == 0
    assert "--run-dir sweeps/mt10-push-v3-reach-v3/mean-0 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--aggregators", "mean", "--seeds", "0"], "error: mean-0: --env is required"),
        (["--env", "toy", "--aggregators", "mean,alined", "--seeds", "0"], "Did you mean 'aligned'?"),
        (["--env", "toy", "--aggregators", "mean", "--seeds", "0", "--gamma", "0.9"], "Did you mean --agent.gamma?"),
        (["--env", "toy", "--aggregators", "mean", "--seeds", "0", "--agent.gamma", "2"], "--agent.gamma: must lie in"),
        (
            ["--env", "toy", "--aggregators", "cagrad,mean", "--seeds", "0", "--aggregator.c", "0.2"],
            "error: mean-0: --aggregator.c: aggregator 'mean' has no such option",
        ),
        (["--env", "toy", "--aggregators", "mean", "--seeds", "0", "--seed", "1"], "give --seeds 0:5"),
        (["--env", "toy", "--aggregators", "mean", "--seeds", "0", "--run_dir=x"], "give --sweep-dir"),
        (
            ["--env", "toy", "--aggregators", "mean", "--seeds", "0", "--jobs", "0"],
            "--jobs: expected at least 1, got 0",
        ),
        (["--env", "toy", "--aggregators", "mean,mean", "--seeds", "0"], "--aggregators: expected names"),
        (["--env", "toy", "--aggregators", "mean", "--seeds", "5:5"], "--seeds: expected FROM:TO"),
    ],
)
def test_what_training_or_the_sweep_refuses_starts_nothing(capsys, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, *argv)
    assert list(tmp_path.iterdir()) == []


def test_other_settings_than_a_run_was_started_with_are_refused(capsys, tmp_path):
    run_dir = tmp_path / "mean-0"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(cli.parse([*TOY, "--threads", "1"]).to_yaml())
    argv = [*TOY, "--sweep-dir", str(tmp_path), "--aggregators", "mean", "--seeds", "0", "--agent.gamma", "0.5"]
    assert "--agent.gamma is 0.5, and the run in" in refusal(capsys, *argv)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0:5", (0, 1, 2, 3, 4)), ("3:5", (3, 4)), ("4", (4,)), ("7,0", (7, 0)), ("00", (0,))]
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", ":", "0:", "5:0", "0,0", "-1", "1.0", "0:2:4", "a", "0,", "²"])
def test_seeds_that_are_none(text):
    with pytest.raises(cli.UsageError, match="--seeds: expected FROM:TO"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["", "mean,", "mean,mean"])
def test_names_that_are_none(text):
    with pytest.raises(cli.UsageError, match="--aggregators"):
        parse_names(text)


def test_a_started_run_keeps_its_threads_and_takes_the_workers_of_today(tmp_path):
    (tmp_path / "mean-0").mkdir()
    (tmp_path / "mean-0" / "config.yaml").write_text(cli.parse(["--env", "mt10", "--threads", "2"]).to_yaml())
    old, new = plan(("mean",), (0, 1), ["--env", "mt10"], tmp_path, cpus=5)
    assert [cli.parse(run.flags).trainer.threads for run in (old, new)] == [2, 5]
    assert [cli.parse(run.flags).trainer.workers for run in (old, new)] == [5, 5]


# ---- what is finished, and the table


def finished(folder: Path, aggregator: str, seed: int, success: tuple[float, float] | None, **state: int) -> Run:
    """Write what of a run counts here: its records and its last checkpoint."""
    run = Run(
        aggregator=aggregator,
        seed=seed,
        run_dir=folder / f"{aggregator}-{seed}",
        flags=(),
        total_steps=500,
        steps_per_vector_step=8,
        evaluates=success is not None,
    )
    state = {"step_count": 504, "logged_at": 504, "evaluated_at": 504 if success else 0} | state
    checkpoint.save(run.run_dir / "checkpoints", state["step_count"], {"trainer": state})
    records = [{"kind": "evaluation", "step": 100, "success/mean": 0.0, "success/worst": 0.0}, {"kind": "train"}]
    if success:
        records.insert(1, {"kind": "evaluation", "step": 504, "success/mean": success[0], "success/worst": success[1]})
    (run.run_dir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run


@pytest.mark.parametrize(
    ("state", "is_finished"),
    [
        ({}, True),
        ({"step_count": 499}, False),
        ({"evaluated_at": 400}, False),
        ({"logged_at": 400}, False),
        ({"step_count": 507, "logged_at": 400}, False),
        ({"step_count": 508, "logged_at": 400}, True),
    ],
)
def test_a_run_is_finished_when_its_last_step_is_recorded_and_evaluated(tmp_path, state, is_finished):
    assert finished(tmp_path, "mean", 0, (1.0, 1.0), **state).is_finished() == is_finished


def test_a_run_with_a_damaged_last_checkpoint_is_not_finished(tmp_path):
    run = finished(tmp_path, "mean", 0, (1.0, 1.0))
    (run.run_dir / "checkpoints" / "000000000504" / "trainer.pt").write_bytes(b"")
    assert not run.is_finished()


def test_table_of_hand_values(tmp_path):
    runs = [
        finished(tmp_path, "mean", 0, (0.5, 0.25)),
        finished(tmp_path, "cagrad", 0, (0.875, 0.5)),
        finished(tmp_path, "mean", 1, (0.75, 0.25)),
        finished(tmp_path, "cagrad", 1, (1.0, 1.0), step_count=400),
    ]
    # mean of 0.5 and 0.75: 0.625 +- 12.706 * 0.125, beyond where rates lie; equal values have no interval
    assert table(runs) == [
        "success at step 500",
        "aggregator  seed 0  seed 1   mean    95% interval  worst task  95% interval",
        "mean         0.500   0.750  0.625  0.000 to 1.000       0.250             -",
        "cagrad       0.875       -  0.875               -       0.500             -",
        "not finished: cagrad-1 (step 400)",
    ]


def test_table_of_three_seeds_has_students_interval(tmp_path):
    runs = [finished(tmp_path, "mean", seed, (value, 0.5)) for seed, value in enumerate((0.5, 0.52, 0.54))]
    # 0.52 +- 4.3027 * 0.02 / sqrt(3) = 0.0497
    assert "0.520  0.470 to 0.570" in table(runs)[2]


def test_a_run_that_was_trained_on_counts_as_it_was_then(tmp_path):
    run = finished(tmp_path, "mean", 0, (0.5, 0.25))
    with (run.run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "evaluation", "step": 1000, "success/mean": 1.0, "success/worst": 1.0}\n')
    assert table([run])[2].split() == ["mean", "0.500", "0.500", "-", "0.250", "-"]


def test_table_of_runs_without_evaluation(tmp_path):
    run = finished(tmp_path, "mean", 0, None)
    (run.run_dir / "metrics.jsonl").write_text('{"kind": "train", "step": 504}\n')
    assert table([run])[2].split() == ["mean", "-", "-", "-", "-", "-"]


# ---- signals and failures while a job is started


class Recorded:
    """A job that runs until it is told to end."""

    def __init__(self) -> None:
        self.told: list[signal.Signals] = []

    def poll(self) -> int | None:
        return 143 if self.told else None

    def stop(self, number: signal.Signals) -> None:
        self.told.append(number)


class Troubled:
    """A launcher in which something happens when the last job is started."""

    def __init__(self, trouble: Callable[[], object], num_jobs: int) -> None:
        self.handles: list[Recorded] = []
        self._trouble, self._num_jobs = trouble, num_jobs

    def start(self, job: Job) -> Recorded:
        assert job.command
        if len(self.handles) == self._num_jobs - 1:
            self._trouble()
        self.handles.append(Recorded())
        return self.handles[-1]

    def close(self) -> None:
        pass


def runs_of(folder: Path) -> list[Run]:
    return plan(("mean", "sum"), (0,), TOY, folder, 1)


@pytest.mark.parametrize("times", [1, 2])  # twice in a moment, as from `timeout`: a second request would end the jobs
def test_a_signal_reaches_the_job_that_is_being_started_and_the_others_once(tmp_path, times):
    launcher = Troubled(lambda: [signal.raise_signal(signal.SIGTERM) for _ in range(times)], num_jobs=2)
    SweepLoop(runs_of(tmp_path / "sweep"), launcher, 2).run()
    assert [handle.told for handle in launcher.handles] == [[signal.SIGTERM], [signal.SIGTERM]]


def test_jobs_are_stopped_where_another_cannot_be_started(tmp_path):
    def fail() -> None:
        raise ValueError("a fault")

    launcher = Troubled(fail, num_jobs=2)
    with pytest.raises(ValueError, match="a fault"):
        SweepLoop(runs_of(tmp_path / "sweep"), launcher, 2).run()
    assert [handle.told for handle in launcher.handles] == [[signal.SIGTERM]]


def test_a_job_that_the_machine_cannot_start_fails_and_stops_no_other(capsys, tmp_path):
    def fail() -> None:
        raise OSError("no more processes")

    launcher = Troubled(fail, num_jobs=1)
    loop = SweepLoop(runs_of(tmp_path / "sweep"), launcher, 2)
    loop.run()
    assert [run.name for run in loop.failed] == ["mean-0", "sum-0"]  # the trouble is still there
    assert "mean-0: cannot be started: no more processes" in capsys.readouterr().out


def test_a_file_in_place_of_a_run_is_named(tmp_path):
    (tmp_path / "mean-0").write_text("")
    with pytest.raises(UsageError, match="mean-0 is in the way: expected a folder there, or nothing"):
        runs_of(tmp_path)
