"""Two tiny runs of `toy` from the command line to the page: every number is worked out again from metrics.jsonl."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mtrl.report import frame, success_figures
from mtrl.report.__main__ import main
from mtrl.report.frame import Drawn
from mtrl.report.methods import compare
from tests.report.run_folders import START, evaluation, write

TASKS = ("reach-east", "reach-west")
FLAGS = (
    *("--env", "toy:reach-east,reach-west", "--total-steps", "160", "--warmup-steps", "20", "--eval-every", "40"),
    *("--log-every", "40", "--eval-goals", "2", "--transference-every", "10", "--network.hidden-dims", "8"),
    *("--agent.batch-size", "8"),
)

TRAIN_ALL = """
import json, sys
from mtrl import train
for words in json.loads(sys.argv[1]):
    sys.argv = ["mtrl/train.py", *words]
    assert train.main(words) == 0
"""

pytestmark = pytest.mark.timeout(300)  # the first test trains, draws and saves what all look at


class Page(HTMLParser):
    """What a browser sees: captions of figures, cells of tables, everything that an attribute points to."""

    def __init__(self, text):
        super().__init__()
        self.captions, self.rows, self.links, self.ids, self.text = [], [], [], [], ""
        self._open = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link", "br"):
            self._open.append(tag)
        values = dict(attrs)
        self.links += [values[name] for name in ("src", "href", "xlink:href", "data", "action") if values.get(name)]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "figcaption":
            self.captions.append("")
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        self.text += data
        if "figcaption" in self._open:
            self.captions[-1] += data
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / "mean-0", folder / "aligned-1"]
    words = [
        [*FLAGS, "--aggregator", path.name[:-2], "--seed", path.name[-1], "--run-dir", str(path)] for path in paths
    ]
    call("-c", TRAIN_ALL, json.dumps(words))
    return paths


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    call("-m", "mtrl.report", *runs, "--output", folder)
    return folder


def call(*words):
    """Run Python in a process of its own, which checks no types and is faster."""
    command = [sys.executable, "-W", "error", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "index.html").read_text(encoding="utf-8"))


def curves(run):
    """Return steps and (step, task) success, read without any of the code under test."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["kind"] == "evaluation"]
    return [line["step"] for line in found], np.array([[line[f"success/{task}"] for task in TASKS] for line in found])


def read_csv(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_numbers_are_those_of_the_records(runs, report, page):
    summary = {row["method"]: row for row in read_csv(report / "summary.csv")}
    cells = {row[0]: row for row in page.rows if row}
    for run in runs:
        steps, success = curves(run)
        mean = success.mean(1)
        area = sum((b - a) * (x + y) / 2 for a, b, x, y in zip(steps, steps[1:], mean, mean[1:], strict=False))
        ordered = sorted(success[-1])  # of two scores a quarter, rounded down, is none
        expected = {
            "last": mean[-1],
            "best": mean.max(),
            "area": area / (steps[-1] - steps[0]),
            "iqm": np.mean(ordered),
            "worst": ordered[0],
        }
        method = run.name.split("-")[0]
        row = summary[method]
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected, abs=1e-6)
        assert (row["step"], row["runs"], row["last_low"]) == ("160", "1", "")  # one run has no interval
        shown = [cells[method][column] for column in (2, 3, 4, 5, 6)]
        assert shown == ["160", *(f"{expected[name]:.3f}" for name in ("last", "iqm", "best", "area"))]
        assert cells[run.name][2:9] == [
            run.name[-1], "160", "160", f"{mean[-1]:.3f}", f"{mean.max():.3f}", str(steps[mean.argmax()]),
            f"{expected['area']:.3f}",
        ]  # fmt: skip


def test_the_table_of_evaluations_holds_every_evaluation(runs, report):
    found = [
        (row["run"], int(row["step"]), row["task"], float(row["success"]))
        for row in read_csv(report / "evaluations.csv")
    ]
    expected = [
        (run.name, step, task, value)
        for run in runs
        for step, values in zip(*curves(run), strict=True)
        for task, value in zip(TASKS, values, strict=True)
    ]
    assert len(found) == 2 * 4 * 2
    assert sorted(found) == sorted(expected)


def test_one_run_against_another_is_a_win_a_loss_or_half(runs, report):
    last = [curves(run)[1][-1] for run in runs]
    expected = np.mean([1.0 if x > y else 0.5 if x == y else 0.0 for x, y in zip(*last, strict=True)])
    rows = {(row["x"], row["y"]): float(row["probability"]) for row in read_csv(report / "improvement.csv")}
    assert rows == {("mean", "aligned"): expected, ("aligned", "mean"): 1 - expected}


def test_every_figure_has_its_source_below(runs, page):
    start = json.loads((runs[0] / "environment.json").read_text())[0]
    assert len(page.captions) == 14  # all but success per goal
    for caption in page.captions:
        assert "environmenttoy:reach-east,reach-west" in caption
        assert "rewardas of the commit" in caption
        assert "protocolgoals of goal seed 0" in caption
        assert " -m mtrl.train --env toy:reach-east,reach-west --total-steps 160" in caption
        assert str(start["commit"] or "not recorded") in caption
        assert f"{start['cpu']}, {start['cores']} cores" in caption
    assert "Success per goal: no run has a whole evaluation" in page.text


def test_fewer_than_five_seeds_is_said_on_the_page_and_in_every_picture(report, page):
    text = "mean: 1 seed, aligned: 1 seed — fewer than five seeds"
    assert page.text.count(text) == 1 + len(page.captions)
    svgs = re.findall(r"<svg .*?</svg>", (report / "index.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [text in svg for svg in svgs] == [True] * len(page.captions)


def test_the_page_loads_nothing_from_elsewhere(report, page):
    for link in page.links:
        assert link.startswith(("#", "data:")) or (report / link).is_file(), link
    source = (report / "index.html").read_text(encoding="utf-8")
    assert "<script" not in source
    assert not re.search(r"@import|url\((?!#)", source)


def test_names_in_the_page_are_unique_and_every_reference_has_its_target(report, page):
    assert len(set(page.ids)) == len(page.ids)
    source = (report / "index.html").read_text(encoding="utf-8")
    targets = {link[1:] for link in page.links if link.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", source))
    assert targets <= set(page.ids)


def test_colours_of_text_follow_the_page(report):
    source = (report / "index.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in source
    svgs = "".join(re.findall(r"<svg .*?</svg>", source, flags=re.DOTALL))
    assert "var(--text)" in svgs
    assert "#1b1c1e" not in svgs


def test_every_figure_is_saved_for_a_paper(report):
    for name in (
        "success",
        "tasks",
        "improvement",
        "cosine",
        "condition",
        "similarity",
        "weights",
        "transference",
        "time",
    ):
        assert (report / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (report / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_report_of_a_run_without_an_evaluation_says_so(tmp_path, capsys):
    run = write(tmp_path / "run", [{"kind": "train", "step": 5, "train_success/a": 0.0}])
    assert main([str(run), "--output", str(tmp_path / "report")]) == 0
    assert "without an evaluation" in capsys.readouterr().out
    page = Page((tmp_path / "report" / "index.html").read_text(encoding="utf-8"))
    assert page.captions == []
    assert page.text.count("no run has an evaluation yet") == 5


def test_text_from_runs_is_no_markup(tmp_path):
    start = {"command": ["python", "<script>alert(1)</script>"], "commit": "<b>"}
    run = write(tmp_path / "run", [evaluation(5, **{"a<i>": 0.5})], starts=(start,))
    assert main([str(run), "--output", str(tmp_path / "report")]) == 0
    source = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<b>|<i>", source)


def test_usage_errors_exit_with_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path)])
    assert caught.value.code == 2
    assert "is not a run directory" in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mtrl.report.__main__.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "extra 'plots'" in capsys.readouterr().err


def test_help_imports_neither_matplotlib_nor_torch():
    code = (
        "import sys, runpy; sys.argv = ['report', '--help']\n"
        "try: runpy.run_module('mtrl.report', run_name='__main__')\n"
        "except SystemExit: print([name for name in ('matplotlib', 'torch') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_dollars_in_a_command_are_no_formula_and_axes_have_theirs(tmp_path, page):
    start = START | {"command": ["python", "train.py", "--run-dir", "$_{/$B"]}
    run = write(tmp_path / "run", [evaluation(20, a=0.5)], starts=[start])
    assert main([str(run), "--output", str(tmp_path / "report")]) == 0
    assert "$_{/$B" in Page((tmp_path / "report" / "index.html").read_text(encoding="utf-8")).text
    assert "mathdefault" not in page.text  # the powers of ten beside condition numbers


def test_many_methods_have_lines_of_their_own_and_no_bands(tmp_path):
    paths = [
        write(tmp_path / f"{n}-{seed}", [evaluation(10, a=0.1), evaluation(20, a=n / 20)], seed=seed, gamma=n / 20)
        for n in range(14)
        for seed in range(2)
    ]
    assert len({str(frame.line_style(n)) for n in range(14)}) == 14
    with frame.style():
        few, many = (success_figures.curves(compare(part)) for part in (paths[:24], paths))
    assert isinstance(few, Drawn)
    assert isinstance(many, Drawn)
    assert "12 methods" not in few.caption
    assert "Bands of more than 12 methods" in many.caption
    shown = [sum(len(band.get_paths()) for band in one.figure.axes[0].collections) for one in (few, many)]
    assert shown == [12, 0]
