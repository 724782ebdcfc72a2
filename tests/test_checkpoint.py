import multiprocessing
import os
import signal
import time

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


def test_only_the_newest_two_are_kept(tmp_path):
    for step in (5, 40, 300):
        checkpoint.save(tmp_path, step, {"agent": {"step": step}})
    assert [int(path.name) for path in sorted(tmp_path.iterdir())] == [40, 300]
    assert checkpoint.load(newest(tmp_path), "agent") == {"step": 300}


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
