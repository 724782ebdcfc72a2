"""The toy suite is learned, with every goal of every task, on three seeds."""

import json
import subprocess
import sys

import pytest

RUN_SECONDS = 180
"""Half a minute on an idle core."""


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("aggregator", ["mean", "aligned"])
def test_the_toy_preset_solves_every_task(tmp_path, aggregator, seed):
    argv = ["--env", "toy", "--aggregator", aggregator, "--seed", str(seed), "--eval-goals", "50", "--device", "cpu"]
    # A process of its own: without the run-time type checks of the tests, as a user runs it.
    command = [sys.executable, "-m", "mtrl.train", *argv, "--run-dir", str(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True, timeout=RUN_SECONDS)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["kind"] == "evaluation"
    assert last["success/mean"] >= 0.95
