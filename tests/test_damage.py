"""Checkpoints whose files have changed since they were written: noticed, named, and an older one used."""

import contextlib
import json
import random
from pathlib import Path

import pytest
import torch

from mtrl import checkpoint, manifest
from mtrl.manifest import FormatError
from mtrl.replay import Replay
from tests.small_runs import train
from tests.test_checkpoint import TREE, assert_equal
from tests.test_replay import CPU, add, make_spec

PARTS = {"agent": TREE, "env": {"time": 3}}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three checkpoints, the replay's rows in a segment each."""
    folder = tmp_path / "checkpoints"
    replay, spec, previous = Replay(make_spec(), 100, CPU, seed=0), make_spec(), None
    for step in (100, 200, 300):
        add(replay, spec, step)
        parts = PARTS | {"replay": replay.state_dict()}
        previous = checkpoint.save(folder, step, parts, replay, previous)
    return folder


def segment(folder: Path, step: int) -> Path:
    (path,) = (folder / "replay").glob(f"{step:012d}-*")
    return path


def newest(folder: Path) -> Path:
    return folder / f"{300:012d}"


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "replay")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_the_newest_whole_checkpoint_is_found_without_a_word(folder):
    assert checkpoint.latest_whole(folder) == newest(folder)
    assert checkpoint.latest_whole(folder / "absent") is None


@pytest.mark.parametrize("name", ["agent.pt", "env.pt", "manifest.json"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: flip(path, 100), "damaged"),
        (cut, "damaged"),
        (extend, "damaged"),
        (Path.unlink, "missing"),
        (replace_by_folder, "cannot be read"),
    ],
)
def test_a_damaged_file_is_named_and_the_checkpoint_before_used(folder, name, damage, words):
    damage(newest(folder) / name)
    with pytest.warns(UserWarning, match=rf"{name} (is )?{words}.*; using the checkpoint of step 200 instead"):
        assert checkpoint.latest_whole(folder) == folder / f"{200:012d}"
    assert checkpoint.latest_whole(folder) == folder / f"{200:012d}"  # without another word


@pytest.mark.parametrize(
    ("damage", "words"),
    [(lambda path: flip(path, 100), "is damaged"), (cut, "is damaged"), (Path.unlink, "is missing")],
)
def test_a_damaged_segment_costs_the_checkpoints_that_need_it(folder, damage, words):
    path = segment(folder, 300)
    damage(path)
    with pytest.warns(UserWarning, match=rf"{path.name} {words}.*; using the checkpoint of step 200 instead"):
        assert checkpoint.latest_whole(folder) == folder / f"{200:012d}"
    path = segment(folder, 100)
    damage(path)
    with pytest.raises(ValueError, match=rf"no checkpoint can be used:\n.*{path.name} {words}"):
        checkpoint.latest_whole(folder)


def test_what_is_damaged_stays_until_the_next_save_and_is_no_checkpoint_any_more(folder):
    flip(newest(folder) / "agent.pt", 3)
    with pytest.warns(UserWarning, match="damaged"):
        checkpoint.latest_whole(folder)
    assert names(folder) == [".damaged-000000000300", f"{100:012d}", f"{200:012d}"]
    checkpoint.save(folder, 300, PARTS)
    assert names(folder) == [f"{step:012d}" for step in (100, 200, 300)]
    assert checkpoint.latest_whole(folder) == newest(folder)


def test_several_damaged_ones_are_all_named(folder):
    for step in (200, 300):
        (folder / f"{step:012d}" / "env.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"300/env\.pt is damaged: it has 0 bytes"):  # noqa: SIM117 - both must come
        with pytest.warns(UserWarning, match=r"200/env\.pt is damaged: it has 0 bytes"):
            assert checkpoint.latest_whole(folder) == folder / f"{100:012d}"


def test_nothing_is_moved_where_all_are_damaged(folder):
    before = names(folder)
    for name in before:
        extend(folder / name / "env.pt")
    with pytest.raises(ValueError, match=r"no checkpoint can be used:\n.*300/env.pt is damaged.*\n.*200/env.*\n.*100/"):
        checkpoint.latest_whole(folder)
    assert names(folder) == before


def test_one_hundred_of_one_hundred_flipped_bits_of_a_run_are_noticed(tmp_path):
    # 50 rows per task between checkpoints and 60 kept: each needs two segments, and shares one with the next.
    train(tmp_path / "run", total_steps=600, capacity=60, checkpoint_every=100, eval_every=0)
    folder = tmp_path / "run" / "checkpoints"
    files = {path: files_of(path) for path in reversed(checkpoint.by_step(folder).values())}
    first, *others = files
    assert len(others) == 2
    names_of_first = sorted(path.name for path in files[first] if path.parent == first)
    assert names_of_first == ["agent.pt", "env.pt", "manifest.json", "records.pt", "replay.pt", "trainer.pt"]
    assert len(files[first]) == len(names_of_first) + 2
    draw = random.Random(0)
    places = [(path, bit) for path in files[first] for bit in range(8 * path.stat().st_size)]
    chosen = [(path, draw.randrange(8 * path.stat().st_size)) for path in files[first] for _ in range(6)]
    chosen += draw.sample(places, 100 - len(chosen))
    for path, bit in chosen:
        expected = next(other for other in others if path not in files[other])
        flip(path, bit)
        with pytest.warns(UserWarning, match=rf"{path} is damaged: .*; using the checkpoint of step \d+ instead"):
            assert checkpoint.latest_whole(folder) == expected
        for damaged in folder.glob(".damaged-*"):
            damaged.rename(folder / damaged.name.removeprefix(".damaged-"))
        flip(path, bit)
        checkpoint.check(first)


def files_of(path: Path) -> list[Path]:
    segments = json.loads((path / "manifest.json").read_text())["segments"]
    return [*path.iterdir(), *(path.parent / "replay" / name for name in segments)]


def test_a_part_is_compared_before_it_is_used(folder):
    flip(newest(folder) / "agent.pt", 8 * 1000)
    with pytest.raises(ValueError, match=r"agent\.pt is damaged"):
        checkpoint.load(newest(folder), "agent")
    assert checkpoint.load(newest(folder), "env") == {"time": 3}


def test_a_checkpoint_under_the_name_of_another_step_is_refused(folder):
    newest(folder).rename(folder / f"{400:012d}")
    with pytest.warns(UserWarning, match=r"400/manifest\.json is that of step 300"):
        assert checkpoint.latest_whole(folder) == folder / f"{200:012d}"


def test_a_part_that_is_not_there_is_named(folder):
    with pytest.raises(ValueError, match=r"has no part 'actor', only agent\.pt, env\.pt, replay\.pt"):
        checkpoint.load(newest(folder), "actor")
    with pytest.raises(FileNotFoundError):
        checkpoint.load(folder / "000000000700", "agent")


# ---- what torch makes of other bytes


@pytest.mark.parametrize("content", [b"", b"other bytes", b"junk" * 9, b"h\x00" * 9])
def test_bytes_that_torch_did_not_write_are_refused_by_name(content):
    with pytest.raises(ValueError, match=r"agent\.pt cannot be read"):
        checkpoint._from_bytes(content, Path("agent.pt"), "cpu")


@pytest.mark.parametrize("seed", range(5))
def test_whatever_torch_raises_is_a_value_error(seed):
    # Without a manifest to compare with: torch raises ten types of exception on such files.
    draw = random.Random(seed)
    written = bytes(checkpoint._to_bytes(TREE))
    for _ in range(100):
        content = bytearray(written)
        for _ in range(draw.randrange(1, 10)):
            content[draw.randrange(len(content) // 2)] = draw.randrange(256)
        with contextlib.suppress(ValueError):
            checkpoint._from_bytes(content, Path("x"), "cpu")


# ---- other formats


def test_a_checkpoint_without_a_manifest_can_be_looked_at_and_not_continued(tmp_path):
    old = tmp_path / f"{500:012d}"
    old.mkdir()
    torch.save(checkpoint._encode(TREE), old / "agent.pt")  # as format 1 did
    with pytest.warns(UserWarning, match=r"500 has no manifest\.json: it cannot be checked"):
        assert_equal(checkpoint.load(old, "agent"), TREE)
    with pytest.raises(ValueError, match=r"manifest\.json is missing: .* \(format 1\)"):
        checkpoint.latest_whole(tmp_path)


def test_a_checkpoint_of_a_later_format_is_neither_passed_over_nor_moved(monkeypatch, folder):
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "FORMAT", manifest.FORMAT + 1)
        patch.setattr(checkpoint, "check", lambda path: None)
        checkpoint.save(folder, 400, PARTS)
    before = names(folder)
    with pytest.raises(FormatError, match=f"400 is a checkpoint of format {manifest.FORMAT + 1}"):
        checkpoint.latest_whole(folder)
    assert names(folder) == before
