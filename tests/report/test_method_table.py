"""The Markdown table of methods, by hand."""

import sys

import pytest

from mtrl.report.methods import compare
from scripts import method_table
from tests.report.run_folders import evaluation, write


def write_runs(folder):
    for method, success in {"mean": (0.5, 0.25), "aligned": (1.0, 0.75)}.items():
        for seed, east in enumerate(success):
            records = [evaluation(10, **{"reach-east": 0.0, "reach-west": 0.0})]
            records += [evaluation(20, **{"reach-east": east, "reach-west": 1.0})]
            aggregators = {"critic.aggregator": method, "actor.aggregator": method}
            write(folder / f"{method}-{seed}", records, seed=seed, **aggregators)
    return sorted(folder.iterdir())


def test_the_best_comes_first_beside_the_baseline(tmp_path):
    lines = method_table.table(compare(write_runs(tmp_path)), "mean")
    # aligned: east 1 and 0.75, west 1 and 1: last 0.94; half of the way there is the area. Better than mean: on east in
    # 4 of 4 pairs, on west a tie: 0.75.
    first, second = lines[2].split(" | "), lines[3].split(" | ")
    assert first[:3] == ["| aligned", "2", "0.94 (0.88 to 1.00)"]
    assert first[5] == "0.47 (0.44 to 0.50)"
    assert first[6:] == ["0.88 reach-east", "0.75 |"]
    assert second[:3] == ["| mean", "2", "0.69 (0.62 to 0.75)"]
    assert second[6:] == ["0.38 reach-east", " |"]
    assert "4 runs, steps 20; commit" in lines[-2]


def test_no_run_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["method_table", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        method_table.main()
    assert ended.value.code == 2
    assert f"{tmp_path} is not a run directory" in capsys.readouterr().err


def test_without_the_baseline_nothing_is_compared(tmp_path):
    lines = method_table.table(compare(write_runs(tmp_path)), "cagrad")
    assert lines[2].endswith("|  |")
