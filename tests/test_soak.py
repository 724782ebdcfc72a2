"""What scripts/soak.py makes of what it sees: hand values, and a short run that is really watched."""

import math

import pytest

from scripts import soak
from scripts.soak import Look, Moment, judge, windows


def moments(count=95, leak=0.0, slower=1.0, opened=0):
    """Return moments two seconds apart; a record of 100 steps comes at every fifth, and takes 5 s of processor time."""
    found, cpu = [], 0.0
    for index in range(count):
        cpu += 1.0 if index < count / 2 else slower
        workers = tuple(Look(pid, 50.0, 1.0, 6, cpu / 4) for pid in (11, 12))
        of_an_evaluation = (Look(100 + index, 900.0, 1.0, 6, 3.0),) if index % 2 else ()
        trainer = Look(10, 300.0 + leak * index, 2.0, 7 + opened * (index > count / 2), cpu / 2)
        found.append(Moment(2.0 * index, trainer, workers + of_an_evaluation, 1, 100 * (index // 5)))
    return found


def test_windows_hold_medians_of_what_lasts_and_steps_of_whole_records():
    rows = windows(moments(), 60.0)
    assert [row["minute"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [500, 1100, 1700]
    assert rows[0]["workers MB"] == 100.0  # those of evaluations come and go
    assert rows[0]["worker descriptors"] == 12
    assert rows[0]["trainer MB"] == 300.0
    assert rows[0]["steps per second"] == pytest.approx(100 / 10)
    assert rows[0]["steps per CPU second"] == pytest.approx(100 / 5)  # trainer 1/2, workers 1/4 each


def changed(**options):
    rows = windows(moments(**options), 30.0)
    return [line.split(":")[0].removeprefix("- ") for line in judge(rows) if "**" in line]


def test_a_run_that_stays_as_it_is_passes():
    assert changed() == []


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"leak": 0.1}, "trainer MB"),
        ({"slower": 1.2}, "steps per CPU second"),
        ({"opened": 1}, "trainer descriptors"),
    ],
)
def test_what_changes_is_told_and_nothing_else(options, name):
    assert changed(**options) == [name]


def test_windows_without_a_record_decide_nothing_in_silence():
    rows = windows(moments(), 8.0)
    assert any(math.isnan(row["steps per CPU second"]) for row in rows)
    assert any("steps per CPU second" in line and "**" in line for line in judge(rows))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_is_watched_and_told_to_stop(capsys):
    flags = "--env toy --aggregator mean --total-steps 1000000 --log-every 200 --eval-every 0 --network.hidden-dims 8"
    soak.main(["--minutes", "0.5", "--window", "6", "--settled-at", "0", "--flags", flags])
    output = capsys.readouterr().out
    assert "ended with code 143" in output
    assert "- files in /dev/shm: " in output
