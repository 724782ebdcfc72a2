"""Runs whose disk is full or cannot be written: training goes on, nothing that was saved is lost, the end tells."""

import errno
import math
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtrl import checkpoint, loggers, trainer
from mtrl.envs.toy import Toy
from mtrl.files import StorageError
from mtrl.replay import Replay
from mtrl.signals import StopRequest
from scripts.compare_runs import differences
from tests.full_disk import FullDisk, ReadOnlyDisk
from tests.small_runs import build, train
from tests.test_replay import CPU, add, make_spec
from tests.test_train import TOY, main, records, steps_saved, unchanged_process  # noqa: F401 - a fixture


@pytest.fixture
def one_complaint(monkeypatch):
    """Lets a run say what it cannot write once, and try to save again at once."""
    monkeypatch.setattr(loggers, "COMPLAINT_SECONDS", math.inf)
    monkeypatch.setattr(trainer, "SAVE_AGAIN_SECONDS", 0.0)


def listing(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*"))}


def at_steps(one, actions) -> None:
    """Call each action when the trainer has reached its step."""
    step = one._advance

    def step_and_act():
        step()
        if one.step_count in actions:
            actions[one.step_count]()

    one._advance = step_and_act


# ---- a single save


def test_wherever_a_save_finds_no_space_the_folder_is_as_before(tmp_path):
    spec = make_spec()
    replay = Replay(spec, 8, CPU, seed=0)
    add(replay, spec, 0)
    parts = {"agent": {"numbers": list(range(200))}, "replay": replay.state_dict()}
    previous = checkpoint.save(tmp_path, 1, parts, replay)
    add(replay, spec, 1)
    before = listing(tmp_path)
    room, failed = 0, set()
    while name := refused(room, lambda: checkpoint.save(tmp_path, 2, parts, replay, previous)):
        failed.add(re.sub(r"\d", "", name))
        assert listing(tmp_path) == before
        assert checkpoint.latest_whole(tmp_path) == previous
        room += 37
    assert failed == {"agent.pt", "replay.pt", "partial.rows", "manifest.json"}
    assert checkpoint.latest_whole(tmp_path) == tmp_path / f"{2:012d}"


def refused(room: int, save: Callable[[], Path]) -> str | None:
    """Save on a disk with so much room; return the name of the file that finds none."""
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, room)
        try:
            save()
        except OSError as problem:
            return Path(problem.filename).name if problem.errno == errno.ENOSPC else "another problem"
    return None


def test_a_save_on_a_read_only_disk_changes_nothing(monkeypatch, tmp_path):
    first = checkpoint.save(tmp_path, 1, {"agent": {}})
    before = listing(tmp_path)
    with monkeypatch.context() as patch:
        ReadOnlyDisk(patch)
        with pytest.raises(OSError, match="Read-only file system"):
            checkpoint.save(tmp_path, 2, {"agent": {}}, previous=first)
        assert checkpoint.latest_whole(tmp_path) == first
    assert listing(tmp_path) == before
    assert checkpoint.save(tmp_path, 2, {"agent": {}}, previous=first).name == f"{2:012d}"


def test_what_does_not_read_back_as_written_is_no_checkpoint(monkeypatch, tmp_path):
    first = checkpoint.save(tmp_path, 1, {"agent": {"x": 1}})
    before = listing(tmp_path)
    write = checkpoint.files.write

    def write_and_damage(path, chunks):
        digest = write(path, chunks)
        if path.name == "agent.pt":
            content = bytearray(path.read_bytes())
            content[3] ^= 1
            path.write_bytes(content)
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.files, "write", write_and_damage)
        with pytest.raises(OSError, match=r"does not read back as it was written \(.*agent\.pt is damaged"):
            checkpoint.save(tmp_path, 2, {"agent": {"x": 1}}, previous=first)
    assert listing(tmp_path) == before


# ---- a run


@pytest.mark.usefixtures("one_complaint")
@pytest.mark.parametrize(
    ("disk", "words"), [(FullDisk, "No space left on device"), (ReadOnlyDisk, "Read-only file system")]
)
def test_a_disk_that_fails_for_a_while_costs_a_warning_and_nothing_else(capsys, monkeypatch, tmp_path, disk, words):
    options: dict[str, Any] = {"log_every": 40, "checkpoint_every": 100}
    train(tmp_path / "whole", **options)
    capsys.readouterr()
    one, folder = build(tmp_path / "run", **options), tmp_path / "run" / "checkpoints"
    before = {}

    with monkeypatch.context() as patch:

        def fail():
            before.update(listing(folder))
            disk(patch)

        def recover():
            assert listing(folder) == before
            assert checkpoint.latest_whole(folder) == folder / f"{100:012d}"
            assert [record["step"] for record in records(tmp_path / "run", "train")] == [40, 80, 120]
            patch.undo()

        at_steps(one, {140: fail, 320: recover})
        one.run(StopRequest())
    one.close()
    (warning,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"warning: cannot write .*metrics\.jsonl \({words}\); training goes on, .*", warning)
    # Saved at once when there was space again, not only when the next checkpoint was due.
    assert [path.name for path in checkpoint.by_step(folder).values()] == [f"{step:012d}" for step in (100, 320, 400)]
    assert differences(tmp_path / "run", tmp_path / "whole") == []


@pytest.mark.usefixtures("one_complaint")
def test_a_run_that_ends_without_space_says_so(capsys, monkeypatch, tmp_path):
    one = build(tmp_path / "run", checkpoint_every=100)
    with monkeypatch.context() as patch:
        at_steps(one, {340: lambda: FullDisk(patch)})
        with pytest.raises(StorageError, match=r"ended and cannot be saved: .*metrics\.jsonl: No space left") as caught:
            one.run(StopRequest())
        one.close()
    assert caught.value.__notes__ == ["after 400 environment steps"]
    assert capsys.readouterr().err.count("training goes on") == 1
    found = checkpoint.latest_whole(tmp_path / "run" / "checkpoints")
    assert found == tmp_path / "run" / "checkpoints" / f"{300:012d}"
    train(tmp_path / "run", resume_from=found, checkpoint_every=100)
    train(tmp_path / "whole", checkpoint_every=100)
    assert differences(tmp_path / "run", tmp_path / "whole") == []


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_the_exit_code_of_a_run_that_cannot_be_saved_is_5(capsys, monkeypatch, tmp_path, number):
    run_dir = tmp_path / "run"
    step_wait, calls = Toy.step_wait, []
    with monkeypatch.context() as patch:

        def count(self):
            calls.append(1)
            if len(calls) == 180:  # 4 environment steps each; those that were measured before the run included
                FullDisk(patch)
                if number:
                    signal.raise_signal(number)
            return step_wait(self)

        patch.setattr(Toy, "step_wait", count)
        assert main([*TOY, "--total-steps", "600", "--checkpoint-every", "200", "--run-dir", str(run_dir)]) == 5
    error = capsys.readouterr().err
    assert re.search(
        r"^error: the run has ended and cannot be saved: .*: No space left .*, after \d+ env", error, re.MULTILINE
    )
    saved = steps_saved(run_dir)
    assert saved in (200, 400)
    assert f"the last checkpoint is of step {saved}; continue from it with --resume {run_dir}" in error
    assert main(["--resume", str(run_dir)]) == 0
    assert steps_saved(run_dir) == 600


def test_a_run_that_cannot_be_set_up_for_want_of_space_is_code_5(capsys, monkeypatch, tmp_path):
    run_dir = tmp_path / "run"
    assert main([*TOY, "--total-steps", "200", "--run-dir", str(run_dir)]) == 0
    with monkeypatch.context() as patch:

        def full(path, text):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        patch.setattr("mtrl.run_directory.write_whole", full)
        assert main(["--resume", str(run_dir), "--total-steps", "400"]) == 5
    assert re.search(
        r"^error: the run cannot be set up: .*config\.yaml: No space left on device",
        capsys.readouterr().err,
        re.MULTILINE,
    )
    assert main(["--resume", str(run_dir), "--total-steps", "400"]) == 0
    assert steps_saved(run_dir) == 400


# ---- a small disk of its own


def in_a_namespace(*command: object) -> list[str]:
    """Return a command that runs where file systems can be mounted for it alone."""
    return ["unshare", "--mount", "--map-root-user", *map(str, command)]


def can_mount() -> bool:
    try:
        trial = in_a_namespace("mount", "-t", "tmpfs", "none", "/tmp")
        return subprocess.run(trial, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("size", "hidden_dims"), [("5m", ["64"]), pytest.param("20m", ["128", "128"], marks=pytest.mark.slow)]
)
def test_a_small_disk_that_others_fill_for_a_while(tmp_path, size, hidden_dims):
    disk = tmp_path / "disk"
    disk.mkdir()
    run = in_a_namespace(sys.executable, "-m", "tests.small_disk", disk, size, tmp_path, *hidden_dims)
    found = subprocess.run(run, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "all as it should be"
    kept = tmp_path / "run"
    assert differences(kept, tmp_path / "whole") == []
