"""Rows that identify themselves, saved and restored through segments; most of them in the real replay."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mtrl import segments
from mtrl.replay import Replay
from mtrl.segments import Piece
from tests.test_replay import CPU, add, make_spec, rows_of

SPEC = make_spec(num_tasks=3)
ROW_BYTES = 4 * 7


class Run:
    """A replay of four rows per task, its segments so far, and the clock its data tell."""

    def __init__(self, folder: Path, device=CPU) -> None:
        self.folder, self.device = folder, device
        self.replay = Replay(SPEC, 4, device, seed=0)
        self.segments = []
        self.time = 0

    def add(self, count, left_out=()) -> None:
        """Add that many rows of every task, or of some not."""
        valid = np.array([[task not in left_out] for task in range(3)])
        for _ in range(count):
            add(self.replay, SPEC, self.time, valid)
            self.time += 1

    def save(self) -> list[int]:
        """Save; return how many rows each new segment holds."""
        before = self.segments
        self.segments = segments.extend(self.folder, self.time, self.replay, before)
        return [sum(len(piece.rows) for piece in one.pieces) for one in self.segments if one not in before]

    def restored(self) -> Replay:
        twin = Replay(SPEC, 4, self.device, seed=7)
        twin.load_state_dict(self.replay.state_dict())
        segments.restore(self.folder, self.segments, twin)
        return twin

    def check(self) -> None:
        assert rows_of(self.restored()) == rows_of(self.replay)


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path / "replay")


def test_only_what_is_new_is_written(run):
    run.add(2)
    assert run.save() == [6]
    assert run.save() == []
    run.add(1)
    assert run.save() == [3]
    assert [piece for one in run.segments for piece in one.pieces] == [
        *(Piece(0, 0, 2), Piece(1, 0, 2), Piece(2, 0, 2)),
        *(Piece(0, 2, 3), Piece(1, 2, 3), Piece(2, 2, 3)),
    ]
    run.check()


def test_nothing_at_all_is_saved_and_restored(run):
    assert run.save() == []
    run.check()


def test_a_segment_is_dropped_when_all_its_rows_are_overwritten(run):
    for _ in range(3):
        run.add(2)
        run.save()
    assert len(run.segments) == 2  # four rows are left, of the second and third
    run.check()
    run.add(1)
    run.save()
    assert len(run.segments) == 3  # one row of the second is still there
    run.check()


@pytest.mark.parametrize("count", [3, 4, 5, 9, 23])
def test_a_ring_that_wrapped_between_saves_holds_its_newest_rows(run, count):
    run.add(3)
    run.save()
    run.add(count)
    # Row 0 is overwritten by the fifth row in all, row 2 by the seventh.
    assert run.save() == [3 * min(count, 4)]
    assert len(run.segments) == (2 if count < 4 else 1)
    run.check()


def test_tasks_of_different_numbers_of_rows_keep_their_own(run):
    run.add(1, left_out=[0])
    run.add(2, left_out=[0, 2])
    assert run.save() == [4]  # none, three and one
    run.check()
    run.add(3, left_out=[1])
    run.save()
    run.check()
    run.add(5, left_out=[2])
    run.save()
    run.check()
    assert [len(rows) for rows in run.replay.live()] == [4, 4, 4]
    assert run.replay.live() == [range(4, 8), range(4, 8), range(4)]


def test_random_histories_are_restored(tmp_path):
    draw = np.random.default_rng(0)
    for history in range(20):
        run = Run(tmp_path / str(history))
        for _ in range(12):
            run.add(int(draw.integers(0, 7)), left_out=np.flatnonzero(draw.random(3) < 0.4).tolist())
            if draw.random() < 0.7:
                run.save()
                run.check()


def test_a_full_segment_is_cut_within_a_task(monkeypatch, run):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 5 * ROW_BYTES + 3)
    run.add(4)
    assert run.save() == [5, 5, 2]
    assert [one.pieces for one in run.segments] == [
        (Piece(0, 0, 4), Piece(1, 0, 1)),
        (Piece(1, 1, 4), Piece(2, 0, 2)),
        (Piece(2, 2, 4),),
    ]
    assert [one.digest.size for one in run.segments] == [5 * ROW_BYTES, 5 * ROW_BYTES, 2 * ROW_BYTES]
    run.check()
    run.add(6)
    run.save()
    run.check()


def test_rows_larger_than_a_segment_have_one_each(monkeypatch, run):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1)
    run.add(1)
    assert run.save() == [1, 1, 1]
    run.check()


def test_files_that_are_gone_are_written_anew_as_far_as_their_rows_are_there(run):
    for _ in range(3):
        run.add(1)
        run.save()
    (run.folder / run.segments[1].name).unlink()
    run.add(1)
    assert run.save() == [6]  # the second row and the fourth
    run.check()
    path = run.folder / run.segments[0].name
    path.write_bytes(path.read_bytes()[1:])
    assert run.save() == [3]
    run.check()


def test_another_history_of_the_same_steps_never_overwrites_a_file(tmp_path):
    # A run that got further than the checkpoint another one continues from: the same numbers, other rows.
    first, second = Run(tmp_path), Run(tmp_path)
    for run in (first, second):
        run.add(2)
        run.save()
    assert first.segments == second.segments
    second.time += 5
    for run in (first, second):
        run.add(1)
    second.time -= 5
    assert first.time == second.time
    for run in (first, second):
        run.save()
    assert first.segments[0] == second.segments[0]
    assert first.segments[1].pieces == second.segments[1].pieces
    assert first.segments[1].name != second.segments[1].name
    first.check()
    second.check()
    assert rows_of(first.replay) != rows_of(second.replay)


def test_what_is_not_needed_is_deleted_and_files_of_others_stay(run):
    run.add(1)
    run.save()
    run.add(1)
    run.save()
    (run.folder / "notes").write_text("mine")
    (run.folder / "partial.rows").write_text("torn")
    needed = run.segments[1].name
    segments.discard(run.folder, {needed})
    assert sorted(path.name for path in run.folder.iterdir()) == [needed, "notes"]


def test_a_damaged_segment_is_named(run):
    run.add(1)
    run.save()
    path = run.folder / run.segments[0].name
    content = bytearray(path.read_bytes())
    content[5] ^= 4
    path.write_bytes(content)
    for use in (lambda: segments.check(run.folder, run.segments), run.restored):
        with pytest.raises(ValueError, match=rf"{path.name} is damaged"):
            use()


def test_rows_in_no_segment_are_noticed(run):
    run.add(3)
    run.save()
    run.add(1)
    with pytest.raises(ValueError, match=r"holds \[3, 3, 3\] rows per task, expected \[4, 4, 4\]"):
        run.restored()


@pytest.mark.gpu
def test_rows_of_another_device_are_copied_in_parts(tmp_path):
    run = Run(tmp_path / "replay", torch.device("cuda"))
    for count in (3, 1, 6):
        run.add(count)
        run.save()
        run.check()
