import pytest

from mtrl.flags import RESUMABLE, UsageError
from mtrl.report import methods, provenance
from mtrl.report.methods import compare
from mtrl.report.summary import area_under, summarise
from tests.report.run_folders import START, evaluation, write


def runs(folder, count, config=None, step=20):
    config = config or {}
    name = "-".join(map(str, config.values())) or "run"
    return [
        write(folder / f"{name}{seed}", [evaluation(10, a=0.0), evaluation(step, a=0.5)], seed=seed, **config)
        for seed in range(count)
    ]


def test_runs_that_differ_in_seed_are_one_method_and_others_are_named_by_what_differs(tmp_path):
    aligned = {"critic_aggregator": "aligned", "actor_aggregator": "mean"}
    paths = [*runs(tmp_path, 2), *runs(tmp_path, 2, aligned), *runs(tmp_path, 1, {"agent.gamma": 0.8})]
    comparison = compare(paths)
    found = [(method.label, len(method.runs)) for method in comparison.methods]
    assert found == [("mean agent.gamma=0.9", 2), ("aligned / mean", 2), ("mean agent.gamma=0.8", 1)]
    assert "settings differ in more than seed and aggregator: agent.gamma: 0.8, 0.9" in comparison.notes


def test_what_may_change_when_a_run_is_continued_makes_no_other_method():
    assert set(RESUMABLE) <= set(methods.NO_METHOD)


def test_where_a_run_is_computed_makes_no_other_method(tmp_path):
    paths = [write(tmp_path / str(n), [evaluation(20, a=0.5)], seed=n, workers=n, device="cpu") for n in (1, 2)]
    assert [len(method.runs) for method in compare(paths).methods] == [2]


def test_few_seeds_are_told_and_five_are_not(tmp_path):
    paths = [*runs(tmp_path, 5), *runs(tmp_path, 4, {"critic_aggregator": "aligned"})]
    assert compare(paths).few_seeds.startswith("aligned / mean: 4 seeds — fewer than five seeds")
    assert compare(paths[:5]).few_seeds == ""


def test_a_repeated_seed_counts_once_and_is_told(tmp_path):
    paths = [write(tmp_path / str(n), [evaluation(20, a=0.5)], seed=min(n, 3)) for n in range(5)]
    comparison = compare(paths)
    assert comparison.methods[0].num_seeds == 4
    assert any("a seed occurs more than once" in note for note in comparison.notes)


def test_methods_are_compared_at_the_last_step_that_all_share(tmp_path):
    short = runs(tmp_path, 1)
    long = write(
        tmp_path / "long", [evaluation(step, a=step / 100) for step in (10, 20, 30)], critic_aggregator="aligned"
    )
    comparison = compare([*short, long])
    assert comparison.steps == (10, 20)
    assert [(one.step, one.last, one.best) for one in summarise(comparison)] == [(20, 0.5, 0.5), (20, 0.2, 0.2)]
    assert any("beyond step 20" in note for note in comparison.notes)


def test_a_run_that_is_behind_is_named_with_what_could_be_compared_without_it(tmp_path):
    records = [evaluation(10, a=0.1), evaluation(20, a=0.2)]
    paths = [write(tmp_path / f"run{seed}", records, seed=seed) for seed in range(2)]
    assert compare(paths).is_at_end
    behind = write(tmp_path / "behind", records[:1], seed=2)
    comparison = compare([*paths, behind])
    assert not comparison.is_at_end
    assert any(note.endswith("they are compared there; at step 20 without behind") for note in comparison.notes)


def test_a_run_that_has_just_begun_is_left_out_and_named(tmp_path):
    paths = runs(tmp_path, 1)
    empty = write(tmp_path / "empty", [])
    started = tmp_path / "started"
    started.mkdir()
    (started / "output.log").write_text("$ python\n")
    comparison = compare([*paths, empty, started])
    assert [run.name for run in comparison.runs] == ["run0"]
    assert "nothing recorded yet, and left out: empty, started" in comparison.notes
    with pytest.raises(UsageError, match="no run has recorded anything yet"):
        compare([empty, started])
    with pytest.raises(UsageError, match="has no record of training or evaluation yet"):
        compare([empty])


def test_other_software_is_told(tmp_path):
    other = START | {"commit": "fedcba9876543210", "versions": START["versions"] | {"mujoco": "3.4.0"}}
    paths = [write(tmp_path / str(n), [evaluation(20, a=0.5)], seed=n, starts=(START,)) for n in range(2)]
    assert not any("software" in note for note in compare(paths).notes)
    paths.append(write(tmp_path / "other", [evaluation(20, a=0.5)], seed=2, starts=(START, other)))
    told = "made by different software: commit: 0123456789, fedcba9876; mujoco: 3.3.0, 3.4.0"
    assert told in compare(paths).notes


def test_a_method_whose_runs_share_no_step_is_named(tmp_path):
    paths = [*runs(tmp_path, 1), *runs(tmp_path, 1, {"critic_aggregator": "aligned"})]
    paths.append(write(tmp_path / "late", [evaluation(15, a=0.5)], seed=5, critic_aggregator="aligned"))
    comparison = compare(paths)
    assert [one.label for one in summarise(comparison)] == ["mean"]
    assert any(note.startswith("aligned / mean: left out of success") for note in comparison.notes)


def test_without_a_shared_step_each_method_stands_alone_and_it_is_told(tmp_path):
    paths = [*runs(tmp_path, 1), write(tmp_path / "other", [evaluation(15, a=0.3)], critic_aggregator="aligned")]
    comparison = compare(paths)
    assert comparison.steps == ()
    assert [(one.step, one.last) for one in summarise(comparison)] == [(20, 0.5), (15, 0.3)]
    assert any("methods are not compared" in note for note in comparison.notes)


def test_a_run_on_its_way_is_told_with_its_share(tmp_path):
    paths = runs(tmp_path, 1, step=15)
    paths.append(write(tmp_path / "begun", [{"kind": "train", "step": 5, "train_success/a": 0.0}], seed=9))
    notes = compare(paths).notes
    assert "not at their end: run0 (75%), begun (25%)" in notes
    assert "without an evaluation, and left out of success: begun" in notes


def test_last_best_and_area_are_worked_out_by_hand(tmp_path):
    # Means over tasks: run 0 has 0.2, 0.8, 0.4; run 1 has 0.4, 0.2, 0.6; steps 10, 20, 40.
    # last (0.4 + 0.6) / 2 = 0.5; best (0.8 + 0.6) / 2 = 0.7, not the 0.5 that their mean curve reaches
    # area: (10 * (0.2 + 0.8) / 2 + 20 * (0.8 + 0.4) / 2) / 30 = 17 / 30; (10 * 0.3 + 20 * 0.4) / 30 = 11 / 30
    curves = [((0.1, 0.3), (0.7, 0.9), (0.1, 0.7)), ((0.4, 0.4), (0.2, 0.2), (0.4, 0.8))]
    paths = []
    for seed, curve in enumerate(curves):
        records = [evaluation(step, a=a, b=b) for step, (a, b) in zip((10, 20, 40), curve, strict=True)]
        paths.append(write(tmp_path / str(seed), records, seed=seed))
    (one,) = summarise(compare(paths))
    assert (one.last, one.best, one.area) == pytest.approx((0.5, 0.7, 14 / 30))
    # last scores 0.1, 0.7 and 0.4, 0.8: middle two 0.4 and 0.7; worst tasks 0.1 and 0.4, both a
    assert (one.iqm, one.worst, one.worst_task) == pytest.approx((0.55, 0.25, "a"))
    # two runs, drawn whole: 0.4 and 0.6 are a quarter each, the mean lies between
    assert [float(end) for end in one.last_interval] == pytest.approx([0.4, 0.6])


def test_the_area_of_one_evaluation_is_its_value():
    import numpy as np

    assert area_under(np.array([10]), np.array([0.25])) == 0.25


@pytest.mark.parametrize("other", [{"env": "toy_exp"}, {"goal_seed": 1}])
def test_runs_of_other_tasks_or_goals_are_refused(tmp_path, other):
    (name, value), *_ = other.items()
    with pytest.raises(UsageError, match=f"has {name} {value} and .* has"):
        compare([*runs(tmp_path, 1), *runs(tmp_path, 1, other)])


def test_a_run_named_twice_is_refused(tmp_path):
    (path,) = runs(tmp_path, 1)
    with pytest.raises(UsageError, match="named twice"):
        compare([path, path / "."])


def test_the_source_names_versions_reward_and_every_commit(tmp_path):
    later = START | {"commit": "fedc", "gpus": ["Some GPU"]}
    paths = [write(tmp_path / "run", [evaluation(20, a=0.5)], env="mt10", starts=(START, later))]
    source = provenance.lines(compare(paths).runs)
    assert source["environment"] == "mt10, Meta-World 3.1.1, MuJoCo 3.3.0"
    assert source["reward"] == "v2"
    assert source["command"] == "python -m mtrl.train --env toy --seed 7 (resumed once)"
    assert source["commit"] == "0123456789abcdef and fedc"
    assert source["hardware"] == "Some Processor, 2 cores, no GPU and Some Processor, 2 cores, Some GPU"
