"""Runs that are killed by scripts/kill_test.py, in a process of its own: it forks."""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import kill_test


def run_script(tmp_path: Path, kills: int, steps: int) -> list[str]:
    """Run the script in that folder; return what it says."""
    found = subprocess.run(
        [sys.executable, "scripts/kill_test.py", "--kills", str(kills), "--steps", str(steps), "--seed", "1"],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("kills", "steps"), [(5, 120), pytest.param(200, 1200, marks=pytest.mark.slow)])
def test_killed_runs_go_on_and_end_as_if_they_had_been_left_alone(tmp_path, kills, steps):
    lines = run_script(tmp_path, kills, steps)
    assert f"| kills | {kills} |" in lines
    assert "| starts that failed, and places in which a run differs from the one left alone | 0 |" in lines


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_run_that_cannot_be_continued_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(kill_test, "_fork", lambda flags, log: log.write_text("error: no") and 1)
    monkeypatch.setattr(kill_test, "_wait", lambda pid, log: (2, log.read_text()))
    found = kill_test.Found()
    args = argparse.Namespace(kills=0, steps=100, seed=0)
    kill_test._one_run(tmp_path, args, random.Random(0), found)
    assert found.problems == ["aligned, seed 0: cannot be continued, code 2:\nerror: no"]
