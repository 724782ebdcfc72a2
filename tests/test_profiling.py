"""What `--profile` writes and prints, of real runs of two toy tasks."""

import json
import re
from typing import Any

import pytest

from mtrl import recording
from mtrl.checkpoint import latest
from mtrl.operations import trace
from mtrl.profiling import FIRST_UPDATES, ROWS
from mtrl.schedule import Config
from mtrl.signals import StopRequest
from mtrl.timing import Stopwatch
from scripts.compare_runs import differences
from tests.small_runs import build, records, train

ANY_SECTION = "update", "critic", "actor", "aggregation", "replay", "acting", "environments"
QUIET: dict[str, Any] = {
    "total_steps": 180,  # 45 vector steps, the update beside the 26th is the first
    "log_every": 200,
    "eval_every": 0,
    "checkpoint_every": 0,
    "transference_every": 0,
}
UPDATES = 45 - 25


def ranges(run_dir, name):
    """Return the times at which the ranges of that name begin in the trace."""
    events = json.loads((run_dir / "profile.json").read_text())["traceEvents"]
    return sorted(event["ts"] for event in events if event.get("cat") == "user_annotation" and event["name"] == name)


def test_the_trace_holds_the_updates_asked_for_and_what_came_between(tmp_path):
    trainer = train(tmp_path / "run", profile=3, **QUIET)
    assert trainer.learner.update_count == UPDATES  # training went on
    # An update has two sections of the critic, one before and one after the actor's. The environments have a section
    # before it, where their step begins, and one after it, where that ends; the trace begins and ends with updates.
    counts = {name: len(ranges(tmp_path / "run", name)) for name in ANY_SECTION}
    assert counts == {
        "update": 3,
        "critic": 6,
        "actor": 3,
        "aggregation": 6,
        "replay": 6,
        "acting": 3,
        "environments": 6,
    }
    starts = [ranges(tmp_path / "run", name)[0] for name in ("environments", "replay", "acting", "critic", "actor")]
    assert starts == sorted(starts)
    names = {event["name"] for event in json.loads((tmp_path / "run" / "profile.json").read_text())["traceEvents"]}
    assert {"aten::mm", "aten::_fused_adam_"} <= names


def test_the_dearest_operations_and_the_budget_are_printed(tmp_path, capsys):
    train(tmp_path / "run", profile=2, **QUIET)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    first = next(index for index, line in enumerate(lines) if line.startswith("traced 2 updates"))
    assert lines[first + 1].split() == ["operation", "ms", "share", "calls"]
    rows = [line.split() for line in lines[first + 2 : first + 2 + ROWS]]
    times = [float(row[-3]) for row in rows]
    assert times == sorted(times, reverse=True)
    assert 20 < sum(float(row[-2].rstrip("%")) for row in rows) <= 100.5
    assert not {row[0] for row in rows} & set(ANY_SECTION)
    budget = lines[first + 2 + ROWS]
    shares = dict(re.findall(r"(\w+) ([\d.]+)%", budget.removeprefix("time:")))
    assert set(shares) == set(ANY_SECTION)  # those of the traced updates: no logging, no evaluation
    assert sum(map(float, shares.values())) == pytest.approx(100, abs=0.5)
    assert "profile.json" in lines[first + 3 + ROWS]


def test_a_traced_run_learns_the_same(tmp_path):
    for name, updates in (("plain", 0), ("traced", 4)):
        train(tmp_path / name, profile=updates, **(QUIET | {"log_every": 100}))
    assert not (tmp_path / "plain" / "profile.json").exists()
    assert not differences(tmp_path / "plain", tmp_path / "traced")


def test_a_run_that_ends_first_writes_what_there_is_or_says_why_not(tmp_path, capsys):
    train(tmp_path / "half", profile=100, **QUIET)
    assert f"traced {UPDATES - FIRST_UPDATES} updates" in capsys.readouterr().out
    assert len(ranges(tmp_path / "half", "actor")) == UPDATES - FIRST_UPDATES
    train(tmp_path / "none", profile=5, **(QUIET | {"total_steps": 120}))  # 5 updates
    assert "the run ended before its trace began" in capsys.readouterr().out
    assert not (tmp_path / "none" / "profile.json").exists()


def test_updates_are_traced_step_by_step_also_where_they_would_be_repeated_by_then(tmp_path, monkeypatch):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 2)
    made = []
    monkeypatch.setattr(recording, "trace", lambda *args: made.append(1) or trace(*args))
    trainer = train(tmp_path / "run", profile=3, **QUIET)
    assert len(ranges(tmp_path / "run", "critic")) == 6
    assert trainer.learner.update_count == UPDATES
    assert made  # afterwards: updates and actions


def test_a_run_that_goes_on_keeps_its_trace(tmp_path, capsys):
    train(tmp_path / "run", profile=2, **QUIET)
    before = (tmp_path / "run" / "profile.json").read_bytes()
    capsys.readouterr()
    longer = QUIET | {"total_steps": 240}  # 15 updates more
    train(tmp_path / "run", profile=2, resume_from=latest(tmp_path / "run" / "checkpoints"), **longer)
    assert (tmp_path / "run" / "profile.json").read_bytes() == before
    assert "traced" not in capsys.readouterr().out


def test_a_trace_that_cannot_be_written_does_not_end_the_run(tmp_path, capsys):
    trainer = build(tmp_path / "run", profile=2, **QUIET)
    (tmp_path / "run" / "profile.json").mkdir()
    trainer.run(StopRequest())
    trainer.close()
    assert "the trace could not be written" in capsys.readouterr().out
    assert records(tmp_path / "run", "train")[-1]["step"] == 180
    assert not list((tmp_path / "run").glob(".partial*"))


@pytest.mark.parametrize("updates", [-1, 1001])
def test_lengths_out_of_range_are_refused(updates):
    with pytest.raises(ValueError, match="profile must be at"):
        Config(profile=updates)


def test_a_budget_counts_from_where_it_is_told_to():
    stopwatch = Stopwatch()
    stopwatch.seconds = {"a": 3.0, "b": 2.0, "c": 5.0}
    assert stopwatch.budget() == "time: c 50.0%, a 30.0%, b 20.0%"
    assert stopwatch.budget({"a": 2.0, "c": 5.0}) == "time: b 66.7%, a 33.3%"
