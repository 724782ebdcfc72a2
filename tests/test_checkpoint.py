import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mtrl import checkpoint
from mtrl.replay import Replay
from tests.test_replay import CPU, add, make_spec, rows_of

TREE = {
    "tensor": torch.arange(6.0).reshape(2, 3),
    "array": np.array([[1, 2], [3, 4]], dtype=np.int64),
    "flags": np.array([True, False]),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "scalar": np.array(2.5),
    "empty": np.empty((0, 3), np.float32),
    "nested": [{"stream": np.random.default_rng(3).bit_generator.state}, (1, 2.5, None, "text")],
}


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor | np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert (a == b).all()
    else:
        assert a == b


def test_what_is_saved_comes_back_with_types(tmp_path):
    folder = checkpoint.save(tmp_path, 1200, {"agent": TREE, "replay": {"size": 3}})
    assert folder == checkpoint.latest(tmp_path)
    assert_equal(checkpoint.load(folder, "agent"), TREE)
    assert checkpoint.load(folder, "replay") == {"size": 3}


def test_parts_load_without_executing_anything(tmp_path):
    folder = checkpoint.save(tmp_path, 1, {"agent": TREE})
    torch.load(folder / "agent.pt", weights_only=True)


def newest(folder):
    found = checkpoint.latest(folder)
    assert found is not None
    return found


def test_only_the_newest_three_are_kept(tmp_path):
    for step in (5, 40, 300, 1000):
        checkpoint.save(tmp_path, step, {"agent": {"step": step}})
    assert [int(path.name) for path in sorted(tmp_path.iterdir())] == [40, 300, 1000]
    assert checkpoint.load(newest(tmp_path), "agent") == {"step": 1000}


def test_the_same_step_can_be_saved_again(tmp_path):
    checkpoint.save(tmp_path, 5, {"agent": {"try": 1}})
    folder = checkpoint.save(tmp_path, 5, {"agent": {"try": 2}})
    assert checkpoint.load(folder, "agent") == {"try": 2}


def test_nothing_saved_is_none(tmp_path):
    assert checkpoint.latest(tmp_path / "absent") is None


def test_an_unfinished_checkpoint_is_not_seen_and_is_swept(tmp_path):
    checkpoint.save(tmp_path, 5, {"agent": {}})
    with pytest.raises(AttributeError):
        checkpoint.save(tmp_path, 9, {"agent": {}, "bad": {"f": lambda: None}})
    assert newest(tmp_path).name == "000000000005"
    checkpoint.save(tmp_path, 10, {"agent": {}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000005", "000000000010"]


class KilledError(BaseException):
    """Stands for the end of the process: nothing handles it."""


def kill_at_rename(monkeypatch, number):
    """Let the process die just before it renames for the `number`-th time."""
    rename, names = Path.rename, []

    def counted(self, target):
        names.append(self.name)
        if len(names) == number:
            raise KilledError
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", counted)


def kill_within_deletion(monkeypatch):
    """Let the process die when it has deleted one file of a folder."""

    def torn(folder, **_):
        next(Path(folder).glob("*.pt")).unlink()
        raise KilledError

    monkeypatch.setattr(shutil, "rmtree", torn)


def save_try(folder, step, number):
    return checkpoint.save(folder, step, {"agent": {"try": number}, "replay": {"try": number}})


def tries(folder):
    return {part: checkpoint.load(newest(folder), part)["try"] for part in ("agent", "replay")}


# Renames of a save: 1 the old one away, 2 the new one in, 3 the old one to where it is deleted.
@pytest.mark.parametrize(("rename", "found"), [(1, 1), (2, 1), (3, 2)])
def test_a_kill_while_saving_a_step_again_leaves_one_whole(monkeypatch, tmp_path, rename, found):
    save_try(tmp_path, 5, 1)
    with monkeypatch.context() as patch:
        kill_at_rename(patch, rename)
        with pytest.raises(KilledError):
            save_try(tmp_path, 5, 2)
    assert tries(tmp_path) == {"agent": found, "replay": found}
    with monkeypatch.context() as patch:  # what was kept is safe while the next save is under way, too
        kill_at_rename(patch, 1)
        with pytest.raises(KilledError):
            save_try(tmp_path, 5, 3)
    assert tries(tmp_path) == {"agent": found, "replay": found}
    save_try(tmp_path, 5, 4)
    assert tries(tmp_path) == {"agent": 4, "replay": 4}
    assert [path.name for path in tmp_path.iterdir()] == ["000000000005"]


@pytest.mark.parametrize("steps", [(5, 5), (5, 6, 7, 8)])
def test_a_kill_within_a_deletion_leaves_no_torn_checkpoint(monkeypatch, tmp_path, steps):
    for number, step in enumerate(steps[:-1]):
        save_try(tmp_path, step, number)
    with monkeypatch.context() as patch:
        kill_within_deletion(patch)
        with pytest.raises(KilledError):
            save_try(tmp_path, steps[-1], 9)
    assert tries(tmp_path) == {"agent": 9, "replay": 9}
    complete = [path for path in tmp_path.iterdir() if path.name.isdigit()]
    assert len(complete) == len(set(steps[-3:]))
    for path in complete:
        checkpoint.check(path)
    save_try(tmp_path, 10, 10)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [*sorted(set(steps))[-2:], 10]


def test_a_step_saved_aside_gives_way_to_newer_ones(monkeypatch, tmp_path):
    save_try(tmp_path, 5, 1)
    with monkeypatch.context() as patch:
        kill_at_rename(patch, 2)
        with pytest.raises(KilledError):
            save_try(tmp_path, 5, 2)
    for step in (6, 7, 8):
        save_try(tmp_path, step, step)
        assert tries(tmp_path)["agent"] == step
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [6, 7, 8]


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "notes").write_text("mine")
    for step in (1, 2, 3, 4):
        save_try(tmp_path, step, step)
    assert (tmp_path / "notes").read_text() == "mine"


def _save_forever(folder):
    big = {"tensor": torch.arange(500_000.0)}
    for step in range(1, 10_000):
        checkpoint.save(folder, step, {"agent": {**big, "step": step}, "replay": big})


def test_a_killed_writer_always_leaves_a_whole_checkpoint(tmp_path):
    checkpoint.save(tmp_path, 0, {"agent": {"tensor": torch.arange(500_000.0), "step": 0}})
    for attempt in range(3):
        writer = multiprocessing.get_context("fork").Process(target=_save_forever, args=(tmp_path,))
        writer.start()
        assert writer.pid is not None
        time.sleep(0.05 + 0.037 * attempt)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        folder = newest(tmp_path)
        state = checkpoint.load(folder, "agent")
        assert state["step"] == int(folder.name)
        assert torch.equal(state["tensor"], torch.arange(500_000.0))


def test_complete_checkpoints_are_found_by_step_and_a_replaced_one_counts_once(tmp_path):
    for name in ("000000000300", "000000000040", ".old-000000000040", ".old-000000000005", ".partial-000000000900"):
        (tmp_path / name).mkdir()
    found = checkpoint.by_step(tmp_path)
    assert [(step, path.name) for step, path in found.items()] == [
        (5, ".old-000000000005"),
        (40, "000000000040"),
        (300, "000000000300"),
    ]


# ---- rows in segments


SPEC = make_spec(num_tasks=2)


class Run:
    """Saves a replay again and again, with one more row of every task each time."""

    def __init__(self, folder: Path, resumed: Path | None = None) -> None:
        self.folder, self.previous = folder, resumed
        self.replay = Replay(SPEC, 4, CPU, seed=0)
        if resumed:
            self.replay.load_state_dict(checkpoint.load(resumed, "replay"))
            checkpoint.load_rows(resumed, self.replay)

    def save(self, step: int, time: int | None = None) -> Path:
        add(self.replay, SPEC, step if time is None else time)
        parts = {"replay": self.replay.state_dict()}
        self.previous = checkpoint.save(self.folder, step, parts, self.replay, self.previous)
        return self.previous

    @property
    def segments(self) -> list[int]:
        """Steps at which the segments on the disk were written."""
        return sorted(int(path.name.partition("-")[0]) for path in (self.folder / "replay").iterdir())


def test_segments_are_shared_and_deleted_with_the_last_checkpoint_that_needs_them(tmp_path):
    run = Run(tmp_path)
    for step in range(1, 7):
        run.save(step)
    # Three checkpoints are kept, of the steps 4 to 6; that of step 4 needs the rows of 1 to 4.
    assert run.segments == [1, 2, 3, 4, 5, 6]
    run.save(7)
    assert run.segments == [2, 3, 4, 5, 6, 7]
    for step in (5, 6, 7):
        checkpoint.check(tmp_path / f"{step:012d}")
    assert rows_of(Run(tmp_path, tmp_path / f"{5:012d}").replay) != rows_of(run.replay)
    assert rows_of(Run(tmp_path, tmp_path / f"{7:012d}").replay) == rows_of(run.replay)


def test_saving_twice_in_a_row_writes_no_row_again(tmp_path):
    run = Run(tmp_path)
    for _ in range(4):
        add(run.replay, SPEC, 0)
    run.save(1)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "replay").iterdir()}
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {}, run.replay, run.previous)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "replay").iterdir()} == files


def test_a_run_continued_from_an_older_checkpoint_has_its_own_rows(tmp_path):
    first = Run(tmp_path)
    for step in (1, 2, 3):
        first.save(step)
    for name in ("replay.pt", "manifest.json"):
        (tmp_path / f"{3:012d}" / name).write_bytes(b"")
    with pytest.warns(UserWarning, match="step 2 instead"):
        found = checkpoint.latest_whole(tmp_path)
    second = Run(tmp_path, found)
    second.save(3, time=77)
    assert rows_of(second.replay) != rows_of(first.replay)
    assert second.segments == [1, 2, 3]
    assert rows_of(Run(tmp_path, newest(tmp_path)).replay) == rows_of(second.replay)


def test_segments_of_a_save_that_was_killed_are_deleted_by_the_next(monkeypatch, tmp_path):
    run = Run(tmp_path)
    run.save(1)
    with monkeypatch.context() as patch:
        kill_at_rename(patch, 1)
        with pytest.raises(KilledError):
            run.save(2)
    assert run.segments == [1, 2]
    again = Run(tmp_path, newest(tmp_path))
    again.save(3)
    assert again.segments == [1, 3]


def test_nothing_is_deleted_that_a_checkpoint_may_need_whose_manifest_cannot_be_read(tmp_path):
    run = Run(tmp_path)
    for step in range(1, 9):
        run.save(step)
    assert run.segments == [3, 4, 5, 6, 7, 8]
    manifest = tmp_path / f"{7:012d}" / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(b"")
    run.save(9)
    assert run.segments == [3, 4, 5, 6, 7, 8, 9]
    manifest.write_bytes(content)
    checkpoint.check(manifest.parent)
    run.save(10)
    assert run.segments == [5, 6, 7, 8, 9, 10]


def test_a_checkpoint_that_was_deleted_is_nothing_to_build_on(tmp_path):
    run = Run(tmp_path)
    run.save(1)
    shutil.rmtree(tmp_path / f"{1:012d}")
    run.save(2)
    assert run.segments == [2]
    assert rows_of(Run(tmp_path, newest(tmp_path)).replay) == rows_of(run.replay)
