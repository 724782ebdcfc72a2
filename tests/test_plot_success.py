"""The picture of success, drawn by the script as a user starts it."""

import json
import subprocess
import sys

SCRIPT = "scripts/plot_success.py"


def run_directory(path, aggregator, records):
    path.mkdir()
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (path / "config.yaml").write_text(f"critic.aggregator: {aggregator}\nactor.aggregator: {aggregator}\n")
    return path


def plot(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_draws_runs_of_several_methods(tmp_path):
    evaluations = [
        {"kind": "eval", "step": step, "success/a-v3": value, "success/mean": value, "success/worst": value}
        for step, value in ((10, 0.0), (20, 0.5))
    ]
    runs = [run_directory(tmp_path / name, name, [{"step": 5}, *evaluations]) for name in ("mean", "aligned")]
    found = plot(*runs, "--out", tmp_path / "picture.png")
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_refuses_what_has_no_curve(tmp_path):
    assert "metrics.jsonl" in plot(tmp_path).stderr
    empty = run_directory(tmp_path / "run", "mean", [{"step": 5}])
    found = plot(empty)
    assert found.returncode == 2
    assert "no evaluation yet" in found.stderr
