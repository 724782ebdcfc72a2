"""scripts/stop_time.py, in a process of its own: it forks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FLAGS = "--env toy --aggregator mean --warmup-steps 1 --eval-every 0 --checkpoint-every 0 --network.hidden-dims 8"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.timeout(300)
def test_every_signal_has_its_code_and_the_whole_replay_is_saved():
    found = subprocess.run(
        [sys.executable, "-m", "scripts.stop_time", "--flags", FLAGS],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    rows = [line.split("|")[1:-1] for line in found.stdout.splitlines() if re.match(r"\| SIG", line)]
    assert [(row[0].strip(), row[1].strip()) for row in rows] == [
        ("SIGINT", "130, 130"),
        ("SIGTERM", "143, 143"),
        ("SIGUSR1", "138, 138"),
    ]
    capacity = 4 * 20_000 * (6 + 2 + 1 + 6 + 1) * 4  # tasks x transitions x numbers x bytes
    assert all(float(row[3].replace(",", "")) >= int(capacity / 1e6) for row in rows)
    assert "ended the process" in found.stdout
