"""Data identifies itself: the reward of task i at time t is 100 i + t, and so are the other fields."""

import dataclasses

import numpy as np
import pytest
import torch

from mtrl.interfaces import EnvSpec, Step
from mtrl.replay import Replay, storage_bytes

CPU = torch.device("cpu")


def make_spec(num_tasks=3, envs_per_task=1):
    return EnvSpec(
        task_names=tuple(f"task-{i}" for i in range(num_tasks)),
        envs_per_task=envs_per_task,
        obs_dim=2,
        action_dim=1,
        max_episode_steps=10,
        num_goals=1,
    )


def add(replay, spec, time, valid=None, *, terminated=False):
    """Store one vector step whose every number tells its task and time (plus env / 10)."""
    shape = (spec.num_tasks, spec.envs_per_task)
    mark = (100 * np.arange(spec.num_tasks)[:, None] + time + np.arange(spec.envs_per_task) / 10).astype(np.float32)
    obs = np.stack([mark, -mark], axis=-1)
    step = Step(
        obs=np.full_like(obs, 7777),  # first observation of another episode: must never be stored
        final_obs=obs + 1,
        reward=mark,
        terminated=np.full(shape, terminated),
        truncated=np.zeros(shape, dtype=bool),
        success=np.zeros(shape, dtype=bool),
        goal=np.zeros(shape, dtype=np.int64),
        valid=np.ones(shape, dtype=bool) if valid is None else valid,
        info=np.zeros((*shape, 0)),
    )
    replay.add(obs, mark[..., None] / 1000, step)


def stored(replay, batch_size=2000):
    """Return per task the sorted distinct rewards that samples bring up."""
    batch = replay.sample(batch_size)
    return [sorted(set(row.tolist())) for row in batch.reward]


def test_every_field_of_a_sample_belongs_to_one_transition_of_its_task():
    spec = make_spec()
    replay = Replay(spec, 8, CPU, seed=0)
    for time in range(5):
        add(replay, spec, time)
    batch = replay.sample(64)
    assert batch.obs.shape == (3, 64, 2)
    torch.testing.assert_close(batch.obs[..., 0], batch.reward)
    torch.testing.assert_close(batch.obs[..., 1], -batch.reward)
    torch.testing.assert_close(batch.next_obs, batch.obs + 1)
    torch.testing.assert_close(batch.action[..., 0] * 1000, batch.reward)
    assert torch.equal(batch.task, torch.arange(3)[:, None].expand(3, 64))
    assert torch.equal((batch.reward // 100).long(), batch.task)


def test_a_full_ring_keeps_exactly_the_newest_rows():
    spec = make_spec(num_tasks=2)
    replay = Replay(spec, 4, CPU, seed=0)
    for time in range(11):  # wraps twice, and ends inside the ring
        add(replay, spec, time)
        assert replay.size.tolist() == [min(time + 1, 4)] * 2
    assert stored(replay) == [[7, 8, 9, 10], [107, 108, 109, 110]]


def test_a_partly_filled_ring_never_returns_unwritten_rows():
    spec = make_spec(num_tasks=2)
    replay = Replay(spec, 100, CPU, seed=0)
    for time in range(1, 4):
        add(replay, spec, time)
    assert stored(replay) == [[1, 2, 3], [101, 102, 103]]


def test_copies_of_a_task_fill_one_ring():
    spec = make_spec(num_tasks=2, envs_per_task=3)
    replay = Replay(spec, 4, CPU, seed=0)
    for time in range(2):
        add(replay, spec, time)
    # Six rows went into four slots: the last four in the order (time, env) stay.
    expected = np.array([0.2, 1.0, 1.1, 1.2])
    np.testing.assert_allclose(stored(replay)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(stored(replay)[1], expected + 100, rtol=1e-6)


def test_invalid_rows_are_left_out_and_other_tasks_lose_nothing():
    spec = make_spec(num_tasks=2, envs_per_task=2)
    replay = Replay(spec, 10, CPU, seed=0)
    add(replay, spec, 0)
    add(replay, spec, 1, valid=np.array([[False, True], [True, True]]))
    add(replay, spec, 2, valid=np.array([[False, False], [True, True]]))
    assert replay.size.tolist() == [3, 6]
    np.testing.assert_allclose(stored(replay)[0], [0, 0.1, 1.1], rtol=1e-6)
    np.testing.assert_allclose(stored(replay)[1], [100, 100.1, 101, 101.1, 102, 102.1], rtol=1e-6)


def test_termination_is_stored_and_truncation_is_not_termination():
    spec = make_spec(num_tasks=1)
    replay = Replay(spec, 4, CPU, seed=0)
    add(replay, spec, 0, terminated=True)
    add(replay, spec, 1)
    batch = replay.sample(50)
    assert torch.equal(batch.terminated, (batch.reward == 0).float())


def test_indices_of_different_tasks_are_drawn_independently():
    spec = make_spec(num_tasks=2)
    replay = Replay(spec, 50, CPU, seed=0)
    for time in range(50):
        add(replay, spec, time)
    times = replay.sample(500).reward % 100
    assert abs(np.corrcoef(times.numpy())[0, 1]) < 0.15


def test_sampling_is_uniform():
    spec = make_spec(num_tasks=1)
    replay = Replay(spec, 5, CPU, seed=0)
    for time in range(5):
        add(replay, spec, time)
    counts = torch.bincount(replay.sample(10_000).reward[0].long())
    # 2000 each; five standard deviations of a binomial count are 5 sqrt(10000 * 0.2 * 0.8) = 200.
    assert (counts - 2000).abs().max() < 200


def rows_of(replay):
    """Return the bytes of all stored rows, per task from the oldest to the newest."""
    return [b"".join(replay.read(task, rows)) for task, rows in enumerate(replay.live())]


def test_state_and_rows_continue_identically_after_wrapping():
    spec = make_spec(num_tasks=2)
    replay, twin = Replay(spec, 4, CPU, seed=0), Replay(spec, 4, CPU, seed=5)
    for time in range(6):
        add(replay, spec, time)
    twin.load_state_dict(replay.state_dict())
    for task, content in enumerate(rows_of(replay)):
        twin.write(task, twin.live()[task], memoryview(bytearray(content)))
    for one in (replay, twin):
        add(one, spec, 6)
    assert all(torch.equal(a, b) for a, b in zip(replay.sample(32), twin.sample(32), strict=True))


def test_a_look_that_leaves_the_stream_unchanged_does_not_change_the_next_sample():
    spec = make_spec()
    replay, twin = Replay(spec, 4, CPU, seed=0), Replay(spec, 4, CPU, seed=0)
    for one in (replay, twin):
        add(one, spec, 0)
        add(one, spec, 1)
    with replay.unchanged_stream():
        replay.sample(7)
    assert torch.equal(replay.sample(9).reward, twin.sample(9).reward)


def test_sampling_before_every_task_has_data_names_the_task():
    spec = make_spec(num_tasks=2)
    replay = Replay(spec, 4, CPU, seed=0)
    add(replay, spec, 0, valid=np.array([[True], [False]]))
    with pytest.raises(ValueError, match="task 1 has no transition"):
        replay.sample(1)


def test_rows_are_numbered_per_task_from_the_first_ever():
    spec = make_spec(num_tasks=2)
    replay = Replay(spec, 4, CPU, seed=0)
    add(replay, spec, 0, valid=np.array([[True], [False]]))
    for time in range(1, 7):
        add(replay, spec, time)
    assert replay.live() == [range(3, 7), range(2, 6)]  # seven rows of one task, six of the other, in four slots each
    rewards = [np.frombuffer(content, np.float32).reshape(4, -1)[:, 3].tolist() for content in rows_of(replay)]
    assert rewards == [[3, 4, 5, 6], [103, 104, 105, 106]]


def test_rows_in_one_stretch_are_read_without_a_copy():
    spec = make_spec(num_tasks=1)
    replay = Replay(spec, 4, CPU, seed=0)
    for time in range(4):
        add(replay, spec, time)
    (part,) = replay.read(0, range(1, 3))
    replay._storage[0, 1, 0] = 55
    assert part[0, 0] == 55
    add(replay, spec, 4)
    assert [len(part) for part in replay.read(0, range(2, 5))] == [2, 1]  # slots 2 and 3, then 0


def test_rows_that_are_too_old_are_not_written():
    spec = make_spec(num_tasks=1)
    replay = Replay(spec, 4, CPU, seed=0)
    for time in range(6):
        add(replay, spec, time)
    before = rows_of(replay)
    old = memoryview(bytearray(b"\xff" * 3 * replay.row_bytes))
    replay.write(0, range(-1, 2), old)
    assert rows_of(replay) == before
    replay.write(0, range(3), old)
    assert rows_of(replay)[0] == b"\xff" * replay.row_bytes + before[0][replay.row_bytes :]


@pytest.mark.parametrize(("tasks", "capacity", "obs_dim"), [(2, 4, 2), (3, 8, 2), (3, 4, 3)])
def test_state_of_another_shape_is_refused(tasks, capacity, obs_dim):
    other = Replay(dataclasses.replace(make_spec(tasks), obs_dim=obs_dim), capacity, CPU, seed=0)
    # 4 bytes x (2 obs + 1 action + 1 reward + 2 next obs + 1 terminated) = 28
    with pytest.raises(ValueError, match=r"does not fit into one of \(3, 4, 28\)"):
        Replay(make_spec(), 4, CPU, seed=0).load_state_dict(other.state_dict())


def test_a_replay_holds_at_least_one_vector_step():
    spec = dataclasses.replace(make_spec(), envs_per_task=5)
    with pytest.raises(ValueError, match=r"replay\.capacity must hold one vector step, 5 rows, got 4"):
        Replay(spec, 4, CPU, seed=0)


def test_a_replay_that_does_not_fit_says_what_would(monkeypatch):
    spec = make_spec()
    free = storage_bytes(spec, 1000) + 5
    monkeypatch.setattr("mtrl.replay.free_bytes", lambda device: free)
    Replay(spec, 1000, CPU, seed=0)
    with pytest.raises(ValueError, match=r"--replay\.capacity 1000 would fit"):
        Replay(spec, 1001, CPU, seed=0)
    free = 5
    with pytest.raises(ValueError, match="not one transition"):
        Replay(spec, 1, CPU, seed=0)
