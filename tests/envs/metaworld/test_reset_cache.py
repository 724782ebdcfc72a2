"""A reset from the cache is the simulated one, bit for bit, in this process and in others."""

import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

from mtrl.envs.metaworld.cache import origin
from mtrl.envs.metaworld.native import NativeSawyerEnv
from mtrl.envs.metaworld.reset_cache import ResetCache
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.envs.metaworld.tasks import MT50
from tests.envs.metaworld.rollouts import GOAL, GOALS, Given, rollout

pytestmark = [pytest.mark.mujoco, pytest.mark.timeout(300)]  # the first run compiles

OF_ALL_KINDS = ("door-lock-v3", "box-close-v3", "bin-picking-v3", "basketball-v3")
"""Attributes that are live views, that depend on the goal, that steps change, and a live target."""

PLAIN = {
    "none": None,
    "true": True,
    "one": 1,
    "float": 1.0,
    "third": 1 / 3,
    "tiny": 5e-324,
    "inf": float("inf"),
    "text": "xpos 3",
}
"""Values that a careless format confuses."""


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "mtrl"


def assert_identical(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert_identical(found[name], value)
    elif isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
        assert found.flags.writeable
        assert found.flags.owndata
    else:
        assert repr(found) == repr(expected)


def assert_same_rollout(found, expected):
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def simulated(name):
    """Return a rollout after a simulated reset."""
    env = SawyerEnv(name, GOALS[name])
    return rollout(env, env.reset(GOAL), env.env.data)


def in_a_process(temperature, folder, names):
    subprocess.run([sys.executable, "-m", "tests.envs.metaworld.rollouts", temperature, folder, *names], check=True)


def assert_processes_continue_alike(folder, names):
    for temperature in ("cold", "warm"):
        in_a_process(temperature, folder, names)
        for name in names:
            assert_same_rollout(pickle.loads((folder / name).read_bytes()), simulated(name))


def test_a_state_keeps_every_type_and_bit():
    nan = np.array([0x7FF8000000000001, 0xFFF0000000000000, 0x8000000000000000], np.uint64).view(np.float64)
    arrays = {
        "odd": np.arange(3, dtype=np.uint8),
        "nan": nan,
        "scalar": np.array(1 / 3),
        "single": np.array([[1 / 3], [2]], np.float32),
        "empty": np.zeros((0, 3)),
        "bool": np.array([True, False]),
        "strided": np.arange(6.0).reshape(2, 3).T.copy(order="C"),
    }
    state = {"goal": 1, "plain": PLAIN, "arrays": arrays, "nothing": {}}
    ResetCache("push-v3", GOALS["push-v3"]).save(1, state)
    assert_identical(ResetCache("push-v3", GOALS["push-v3"]).load(1), state)


@pytest.mark.parametrize("name", OF_ALL_KINDS)
def test_the_state_on_disk_is_the_simulated_one(name):
    env = SawyerEnv(name, GOALS[name])
    expected = ResetCache(name, GOALS[name]).state(GOAL, env)
    env.step(np.ones(4, np.float32))
    found = ResetCache(name, GOALS[name]).state(GOAL, Given(None))
    assert_identical(found, expected)
    env = SawyerEnv(name, GOALS[name])
    env.reset(GOAL)
    assert_identical(found, env.get_state())


def test_other_processes_continue_bit_for_bit(tmp_path):
    assert_processes_continue_alike(tmp_path, OF_ALL_KINDS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_other_processes_continue_every_task_bit_for_bit(tmp_path):
    assert_processes_continue_alike(tmp_path, MT50)


@pytest.mark.parametrize("name", ["door-lock-v3", pytest.param("box-close-v3", marks=pytest.mark.slow)])
def test_the_native_engine_resets_from_disk(name, monkeypatch):
    expected = simulated(name)
    cold = NativeSawyerEnv(name, GOALS[name])
    first = rollout(cold, cold.reset(GOAL), cold.stock.env.data)
    assert_same_rollout(
        {**first, "reward": np.float32(first["reward"])}, {**expected, "reward": np.float32(expected["reward"])}
    )

    def forbidden(_, goal):
        raise AssertionError(f"goal {goal} is simulated again")

    monkeypatch.setattr(SawyerEnv, "reset", forbidden)
    warm = NativeSawyerEnv(name, GOALS[name])
    for env in (warm, warm, cold):
        assert_same_rollout(rollout(env, env.reset(GOAL), env.stock.env.data), first)


def test_goals_are_told_apart_by_their_vectors_and_tasks_by_their_names():
    goals = np.array([[0.1, 0.2], [0.3, 0.4], [0.1, np.nextafter(0.2, 1)]])
    ResetCache("push-v3", goals).save(0, {"goal": 0, "is": "first"})
    assert ResetCache("push-v3", goals).load(0) == {"goal": 0, "is": "first"}
    assert ResetCache("push-v3", goals).load(1) is None
    assert ResetCache("push-v3", goals).load(2) is None
    assert ResetCache("push-v3", goals.astype(np.float32)).load(0) is None
    assert ResetCache("reach-v3", goals).load(0) is None
    assert ResetCache("push-v3", goals[::-1].copy()).load(2) == {"goal": 2, "is": "first"}  # by its index here


def test_a_goal_is_simulated_once():
    cache, source = ResetCache("push-v3", GOALS["push-v3"]), Given({"goal": 4, "x": np.arange(3.0)})
    for _ in range(3):
        assert_identical(cache.state(4, source), source.state)
    assert_identical(ResetCache("push-v3", GOALS["push-v3"]).state(4, source), source.state)
    assert source.resets == [4]


def test_a_damaged_file_is_simulated_again_and_replaced(root):
    source = Given({"goal": 0, "x": np.arange(3.0)})
    ResetCache("push-v3", GOALS["push-v3"]).state(0, source)
    [file] = [path for path in root.rglob("*") if path.is_file()]
    content = file.read_bytes()
    for damaged in (b"", content[:40], content[:-1], bytes([content[0] ^ 1]) + content[1:], b"not from here" * 50):
        file.write_bytes(damaged)
        assert_identical(ResetCache("push-v3", GOALS["push-v3"]).state(0, source), source.state)
        assert file.read_bytes() == content
    assert len(source.resets) == 6


def test_without_a_disk_goals_are_simulated_once_per_process(root):
    root.parent.write_text("a file")
    with pytest.warns(RuntimeWarning, match="nothing is kept for the next run"):
        cache = ResetCache("push-v3", GOALS["push-v3"])
    source = Given({"goal": 0, "x": np.arange(3.0)})
    for _ in range(2):
        assert_identical(cache.state(0, source), source.state)
    assert source.resets == [0]


def test_only_one_of_two_simulates_a_goal_that_both_want():
    both = threading.Barrier(2)

    class Meeting(Given):
        def reset(self, goal):
            try:
                both.wait(0.5)  # where both simulate, they meet here
            except threading.BrokenBarrierError:
                return super().reset(goal)
            raise AssertionError("both simulate")

    source = Meeting({"goal": 0, "x": np.arange(3.0)})
    found = []
    caches = [ResetCache("push-v3", GOALS["push-v3"]) for _ in range(2)]
    threads = [threading.Thread(target=lambda cache=cache: found.append(cache.state(0, source))) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    for state in found:
        assert_identical(state, source.state)
    assert source.resets == [0]


def test_other_machines_do_not_share_files(root, monkeypatch):
    origin.cache_clear()
    ResetCache("push-v3", GOALS["push-v3"])
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    origin.cache_clear()
    ResetCache("push-v3", GOALS["push-v3"])
    origin.cache_clear()
    assert len(list(root.iterdir())) == 2
