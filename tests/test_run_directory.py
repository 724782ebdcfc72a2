"""The folder of a run: its name, what it records, and what it can be resumed from."""

import datetime as dt
import errno
import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from mtrl import checkpoint, cli, run_directory

OWNER = """
import sys
from mtrl import cli, run_directory
settings = cli.parse(["--env", "toy", "--run-dir", "run"])
run_directory.record(settings, run_directory.claim(settings))
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stopped_clock(monkeypatch):
    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(run_directory, "dt", SimpleNamespace(datetime=Clock, UTC=dt.UTC))


def start(*argv: str) -> Path:
    settings = cli.parse([*argv])
    run_dir = run_directory.claim(settings)
    run_directory.record(settings, run_dir)
    return run_dir


def prepare(*argv: str) -> Path:
    return start("--env", "toy", *argv)


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ([], "toy-mean-0-20260102-030405"),
        (["--aggregator", "aligned", "--seed", "3"], "toy-aligned-3-20260102-030405"),
        (["--critic.aggregator", "aligned"], "toy-aligned-mean-0-20260102-030405"),
        (["--env", "mt10:reach-v3,push-v3"], "mt10-reach-v3-push-v3-mean-0-20260102-030405"),
    ],
)
def test_a_run_is_named_by_what_it_is(argv, name):
    assert prepare(*argv) == Path("runs") / name


@pytest.mark.usefixtures("stopped_clock")
def test_runs_that_start_in_the_same_second_are_numbered():
    assert [prepare().name.removeprefix("toy-mean-0-20260102-030405") for _ in range(3)] == ["", "-2", "-3"]


@pytest.mark.usefixtures("stopped_clock")
def test_runs_that_start_at_the_same_moment_get_folders_of_their_own(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda _: False)  # what the other one sees just before it makes the folder
    assert prepare() != prepare()


def test_a_name_stays_short_for_many_tasks():
    tasks = ("reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "drawer-open-v3", "drawer-close-v3")
    assert len(prepare("--env", ",".join(tasks)).name) < 100


def test_the_folder_asked_for_is_made_with_its_parents():
    assert prepare("--run-dir", "a/b/c") == Path("a/b/c")


def test_the_settings_are_written_as_a_preset():
    run_dir = prepare("--seed", "5", "--run-dir", "run")
    again = cli.parse(["--preset", str(run_dir / "config.yaml"), "--run-dir", "again"])
    assert (again.env, again.trainer.seed) == ("toy", 5)


def test_resuming_keeps_the_settings_and_adds_a_start():
    run_dir = prepare("--run-dir", "run")
    written = (run_dir / "config.yaml").read_text()
    assert start("--resume", "run") == run_dir
    assert (run_dir / "config.yaml").read_text() == written
    assert len(json.loads((run_dir / "environment.json").read_text())) == 2


@pytest.mark.parametrize("first", [[], ["--preset", "toy"], ["--total-steps", "10"]])
def test_a_budget_given_on_resuming_holds_from_then_on(first):
    config = prepare("--run-dir", "run", *first) / "config.yaml"
    written = config.read_text()
    start("--resume", "run", "--total-steps", "123456")
    assert cli.parse(["--resume", "run"]).trainer.total_steps == 123456
    assert config.read_text() == re.sub("total_steps: .*", "total_steps: 123456", written)


def test_a_kill_while_the_budget_is_changed_loses_no_settings(monkeypatch):
    config = prepare("--run-dir", "run") / "config.yaml"
    written = config.read_text()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        start("--resume", "run", "--total-steps", "123456")
    assert config.read_text() == written


@pytest.mark.parametrize("torn", [b"", b'[\n {"time": "20', b'["\xc3'])
def test_a_torn_record_of_starts_is_begun_anew(torn):
    record = prepare("--run-dir", "run") / "environment.json"
    record.write_bytes(torn)
    with pytest.warns(UserWarning, match="environment.json is torn"):
        start("--resume", "run")
    assert len(json.loads(record.read_text())) == 1


# ---- one process at a time


@contextmanager
def owned_by_another_process() -> Iterator[int]:
    """Give the id of a process that holds the directory `run` and is killed at the end."""
    code = f"import sys; sys.path[:] = {sys.path}\n{OWNER}"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "holds\n"
            yield owner.pid
        finally:
            owner.send_signal(signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_directory_in_use_is_refused_until_its_owner_has_ended():
    new = cli.parse(["--env", "toy", "--run-dir", "run"])
    with owned_by_another_process() as owner:
        resumed = cli.parse(["--resume", "run"])
        for settings in (new, resumed):
            with pytest.raises(ValueError, match=f"run is in use by process {owner} on "):
                run_directory.claim(settings)
    assert run_directory.claim(resumed) == Path("run")
    assert (Path("run") / "lock").read_text().split()[1] == str(os.getpid())


def test_a_run_refused_while_it_was_set_up_can_be_started_again():
    settings = cli.parse(["--env", "toy", "--run-dir", "run"])
    run_directory.claim(settings)
    assert [path.name for path in Path("run").iterdir()] in (["lock"], [])
    assert run_directory.claim(cli.parse(["--env", "toy", "--run-dir", "run"])) == Path("run")


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_file_system_without_locks_is_a_warning(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(UserWarning, match="run: no locks on this file system"):
        assert prepare("--run-dir", "run") == Path("run")


def test_a_place_that_cannot_be_written_is_named():
    Path("file").touch()
    with pytest.raises(ValueError, match="--run-dir: cannot write file/run: Not a directory"):
        prepare("--run-dir", "file/run")
    Path("runs").touch()
    with pytest.raises(ValueError, match="--run-dir: cannot write runs: File exists"):
        prepare()


def test_a_run_whose_folder_cannot_be_written_is_not_resumed(monkeypatch):
    prepare("--run-dir", "run")
    Path("run").rename("moved")  # where this process holds no lock
    settings = cli.parse(["--resume", "moved"])

    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match="--resume: cannot write moved/lock: Permission denied"):
        run_directory.claim(settings)


# ---- what is resumed


def test_a_new_run_resumes_nothing():
    assert run_directory.checkpoint_to_resume(cli.parse(["--env", "toy"])) is None


def test_the_newest_checkpoint_is_resumed():
    run_dir = prepare("--run-dir", "run")
    for step in (10, 20):
        checkpoint.save(run_dir / "checkpoints", step, {})
    assert run_directory.checkpoint_to_resume(cli.parse(["--resume", "run"])) == run_dir / "checkpoints/000000000020"


def test_a_run_without_a_checkpoint_says_so():
    prepare("--run-dir", "run")
    with pytest.raises(ValueError, match="--resume: run has no complete checkpoint"):
        run_directory.checkpoint_to_resume(cli.parse(["--resume", "run"]))


def test_a_start_is_described_in_json(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--env", "toy"])
    monkeypatch.setattr(run_directory, "_PACKAGES", ("torch", "no-such-package"))
    found = json.loads(json.dumps(run_directory.describe_environment()))
    assert found["command"][1:] == ["train.py", "--env", "toy"]
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["torch"]
    assert found["versions"]["no-such-package"] is None
    assert found["cores"] >= 1


def git(*argv: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *identity, *argv], capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_marked_where_files_differ_from_it(monkeypatch, tmp_path):
    code = tmp_path / "code.py"
    monkeypatch.setattr(run_directory, "__file__", str(code))
    assert run_directory.describe_environment()["commit"] is None  # no checkout
    code.write_text("1")
    git("init")
    git("add", "code.py")
    git("commit", "-m", "code")
    commit = git("rev-parse", "HEAD")
    assert run_directory.describe_environment()["commit"] == commit
    code.write_text("2")
    assert run_directory.describe_environment()["commit"] == f"{commit}+changes"


def test_a_machine_without_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert run_directory._commit() is None


def test_the_processor_is_named_as_the_kernel_does(monkeypatch, tmp_path):
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(run_directory, "Path", lambda _: file)
    monkeypatch.setattr(platform, "processor", lambda: "fallback")
    assert run_directory.cpu_name() == "fallback"  # no such file
    file.write_text("processor : 0\n")
    assert run_directory.cpu_name() == "fallback"  # a kernel that does not tell
    file.write_text("processor : 0\nmodel name : Some: CPU\nmodel name : Other\n")
    assert run_directory.cpu_name() == "Some: CPU"


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(monkeypatch, tmp_path):
    file = tmp_path / "file.json"
    run_directory.write_whole(file, "before")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        run_directory.write_whole(file, "after")
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
    assert file.read_text() == "before"
