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

TREE = {
    "tensor": torch.arange(6.0).reshape(2, 3),
    "array": np.array([[1, 2], [3, 4]], dtype=np.int64),
    "flags": np.array([True, False]),
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
        assert a.dtype == b.dtype
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
