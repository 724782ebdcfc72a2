"""The Markdown table of methods, by hand."""

import sys

import pytest

from mtrl.flags import UsageError
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
    assert "4 runs, steps 20; commit" in lines[-3]
    assert lines[-1].startswith("every method: 2 seeds") or "fewer than five seeds" in lines[-1]


def test_no_run_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["method_table", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        method_table.main()
    assert ended.value.code == 2
    assert f"{tmp_path} is not a run directory" in capsys.readouterr().err


def test_a_baseline_that_is_no_method_is_refused_and_none_compares_nothing(tmp_path):
    comparison = compare(write_runs(tmp_path))
    with pytest.raises(UsageError, match="--baseline: cagrad is none of the methods: aligned, mean"):
        method_table.table(comparison, "cagrad")
    assert method_table.table(comparison, "")[2].endswith("|  |")


def test_what_the_report_warns_of_stands_below(tmp_path):
    lines = method_table.table(compare(write_runs(tmp_path)[:2]), "aligned")
    assert lines[-1].startswith("aligned: 2 seeds")
    one = write(tmp_path / "one", [evaluation(10, **{"reach-east": 0.0, "reach-west": 0.5})], seed=9)
    lines = method_table.table(compare([one]), "")
    assert lines[2].startswith("| mean | 1 | 0.25 | 0.25 |")  # and no interval of a single run
    assert "not at their end: one (50%)" in lines


def test_runs_without_evaluations_or_shared_steps_have_no_comparison(tmp_path):
    begun = write(tmp_path / "begun", [{"kind": "train", "step": 5, "train_success/reach-east": 0.0}])
    with pytest.raises(UsageError, match="no run has an evaluation yet"):
        method_table.table(compare([begun]), "")
    apart = {"critic.aggregator": "aligned", "actor.aggregator": "aligned"}
    early = write(tmp_path / "early", [evaluation(10, a=0.5)])
    late = write(tmp_path / "late", [evaluation(20, a=0.5)], **apart)
    lines = method_table.table(compare([early, late]), "mean")
    assert [line.endswith("|  |") for line in lines[2:4]] == [True, True]
    assert any(line.startswith("2 runs, steps 10 and 20;") for line in lines)
