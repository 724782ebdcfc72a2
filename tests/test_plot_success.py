"""The picture of success, drawn by the script as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure

from scripts import plot_success

SCRIPT = Path(plot_success.__file__)


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


def test_the_curves_are_those_of_the_records(tmp_path, monkeypatch):
    values = {10: (0.25, 0.75), 20: (0.5, 1.0)}
    records = [
        {"step": step, "success/a-v3": a, "success/b-v3": b, "success/mean": (a + b) / 2, "success/worst": a}
        for step, (a, b) in values.items()
    ]
    runs = [run_directory(tmp_path / name, name, records) for name in ("mean", "aligned")]
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "succ')  # while it is being written
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    monkeypatch.setattr("sys.argv", ["plot_success.py", *map(str, runs), "--out", str(tmp_path / "picture.png")])
    plot_success.main()
    (figure,) = drawn
    assert [axis.get_title() for axis in figure.axes] == ["mean", "a", "b"]
    expected = ([0.5, 0.75], [0.25, 0.5], [0.75, 1.0])
    for axis, success in zip(figure.axes, expected, strict=True):
        assert [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines] == [([10, 20], success)] * 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean, 1 run", "aligned, 1 run"]


def test_refuses_a_picture_it_cannot_write(tmp_path):
    for out in (tmp_path / "missing" / "a.png", tmp_path / "a.xyz"):
        found = plot(tmp_path, "--out", out)
        assert found.returncode == 2
        assert "--out: expected a picture" in found.stderr


def test_refuses_what_has_no_curve(tmp_path):
    assert "metrics.jsonl" in plot(tmp_path).stderr
    empty = run_directory(tmp_path / "run", "mean", [{"step": 5}])
    found = plot(empty)
    assert found.returncode == 2
    assert "no evaluation yet" in found.stderr
