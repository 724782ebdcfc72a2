"""`backward` in a supervised loop on real pictures: every method runs in it, and those of the table learn."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from mtrl.aggregators import names
from scripts import supervised_example
from scripts.supervised_example import NUM_TEST, Pictures, build, fit, load, main

TRAIN, TEST = load()


def test_the_data_are_the_digits_and_the_numbers_are_about_standard():
    assert len(TRAIN.x) + len(TEST.x) == 1797
    assert len(TEST.x) == NUM_TEST
    assert TEST.targets[0].bincount(minlength=10).min() >= 30
    for target in TRAIN.targets[1:]:
        assert ((target.std(0) > 0.8) & (target.std(0) < 1.7)).all()


def test_ink_and_centre_follow_from_the_pictures():
    # Targets are differences from the mean, in units of 40 grey levels and 0.03 widths: compare two pictures.
    first, second = (TRAIN.x[row].unflatten(0, (8, 8)) * 16 for row in (0, 1))
    _, ink, centre = (target[0] - target[1] for target in TRAIN.targets)
    assert 40 * ink.item() == pytest.approx(float(first.sum() - second.sum()), rel=1e-4)
    down, across = (
        sum(float(first.sum(axis)[i] / first.sum() - second.sum(axis)[i] / second.sum()) * i / 8 for i in range(8))
        for axis in (1, 0)
    )
    assert [0.03 * value for value in centre.tolist()] == pytest.approx([down, across], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "most_wrong"), [("mean", 0.75), ("aligned", 0.2), ("dibs", 0.2), ("it_mtl", 0.85), ("nash", 0.2)]
)
def test_digits_are_learned_beside_tasks_of_other_scales(name, most_wrong):
    # Guessing is wrong in 0.9. The mean follows the ink, whose loss is about 1000 times larger.
    wrong, ink, centre = fit(build(name), TRAIN, TEST, epochs=6, seed=0)
    assert wrong < most_wrong
    assert max(ink, centre) < 1


@pytest.mark.parametrize("name", names())
def test_every_method_can_be_named(name):
    few = Pictures(TRAIN.x[:128], tuple(target[:128] for target in TRAIN.targets))
    assert all(map(math.isfinite, fit(build(name), few, TEST, epochs=1, seed=0)))


def test_it_mtl_looks_ahead():
    calls = []

    def counting(*arguments):
        calls.append(arguments)
        return evaluate(*arguments)

    evaluate = supervised_example.evaluate
    few = Pictures(TRAIN.x[:64], tuple(target[:64] for target in TRAIN.targets))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised_example, "evaluate", counting)
        fit(build("it_mtl"), few, TEST, epochs=1, seed=0)
    assert len(calls) == 7  # the subsets of three tasks, in one update


def test_prints_a_line_per_method(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["supervised_example.py", "mean", "dibs", "--epochs", "1"])
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    main()
    title, head, *lines = capsys.readouterr().out.splitlines()
    assert title == "test error after 1 epochs, seed 0"
    assert head.split() == ["method", "digit", "ink", "centre"]
    assert [line.split()[0] for line in lines] == ["mean", "dibs"]


def test_refuses_an_unknown_method():
    script = Path(supervised_example.__file__)
    found = subprocess.run([sys.executable, script, "men"], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "unknown aggregator 'men'. Did you mean 'mean'?" in found.stderr
