import errno
import json
import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtrl.loggers import (
    Complaints,
    Console,
    JsonLines,
    Progress,
    TensorBoard,
    _limit,
    duration,
    flatten,
    heat_map,
    show_warnings,
)
from tests.test_train import unchanged_process  # noqa: F401 - a fixture

TASKS = ("reach", "push")
VALUES = {"success": np.array([0.25, 1.0]), "speed": 3.5, "cosine": np.array([[1.0, -0.5], [-0.5, 1.0]])}


def no_complaint(problem):
    raise problem


def json_lines(folder, sizes=None):
    return JsonLines(folder, TASKS, sizes or {}, no_complaint)


def tensor_board(folder, sizes=None, first_step=0):
    return TensorBoard(folder, TASKS, sizes or {}, first_step, no_complaint)


def read_events(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def test_tensorboard_holds_one_curve_per_task_and_matrices_as_images(tmp_path):
    board = tensor_board(tmp_path)
    board.write("train", 100, VALUES)
    board.write("train", 200, {"speed": 4.5})
    board.close()
    events = read_events(tmp_path)
    assert set(events.Tags()["scalars"]) == {"success/reach", "success/push", "speed"}
    assert [(point.step, point.value) for point in events.Scalars("speed")] == [(100, 3.5), (200, 4.5)]
    assert events.Scalars("success/push")[0].value == 1.0
    assert events.Tags()["images"] == ["cosine"]


def test_tensorboard_has_no_point_of_a_run_that_got_further_than_its_checkpoint(tmp_path):
    # Three starts within one second, the second one killed after a record and continued from the same checkpoint.
    first = tensor_board(tmp_path)
    for step in (100, 200):
        first.write("train", step, {"speed": float(step)})
    sizes = first.flush()
    first.write("train", 300, {"speed": 300.0})
    first.close()
    second = tensor_board(tmp_path, sizes, first_step=200)
    second.write("evaluation", 200, {"success/mean": 0.5})
    second.close()
    third = tensor_board(tmp_path, sizes, first_step=200)
    third.write("evaluation", 200, {"success/mean": 0.5})
    third.write("train", 300, {"speed": 1.0})
    sizes = third.flush()
    third.close()
    fourth = tensor_board(tmp_path, sizes, first_step=300)
    fourth.write("train", 400, {"speed": 2.0})
    fourth.close()
    events = read_events(tmp_path)
    points = [(point.step, point.value) for point in events.Scalars("speed")]
    assert points == [(100, 100.0), (200, 200.0), (300, 1.0), (400, 2.0)]
    assert [point.step for point in events.Scalars("success/mean")] == [200]


def test_a_viewer_that_is_open_forgets_the_points_that_were_dropped(tmp_path):
    first = tensor_board(tmp_path)
    first.write("train", 100, {"speed": 100.0})
    sizes = first.flush()
    first.write("train", 200, {"speed": 200.0})
    first.flush()
    viewer = read_events(tmp_path)
    assert [point.step for point in viewer.Scalars("speed")] == [100, 200]
    second = tensor_board(tmp_path, sizes, first_step=100)
    second.write("train", 200, {"speed": 1.0})
    second.flush()
    viewer.Reload()
    assert [(point.step, point.value) for point in viewer.Scalars("speed")] == [(100, 100.0), (200, 1.0)]


def test_json_lines_hold_the_same_numbers_and_null_for_what_is_not_finite(tmp_path):
    log = json_lines(tmp_path)
    log.write("train", 100, VALUES)
    log.write("evaluation", 200, {"success": np.array([np.nan, 0.5])})
    log.close()
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (first["kind"], first["step"], first["success/reach"], first["speed"]) == ("train", 100, 0.25, 3.5)
    assert first["cosine"] == [[1.0, -0.5], [-0.5, 1.0]]
    assert (second["kind"], second["success/reach"], second["success/push"]) == ("evaluation", None, 0.5)


def test_json_lines_have_no_record_of_a_run_that_got_further_than_its_checkpoint(tmp_path):
    log = json_lines(tmp_path)
    for step in (100, 200):
        log.write("train", step, {"run": 1.0})
    sizes = log.flush()
    log.write("evaluation", 200, {"run": 1.0})  # after the checkpoint of its step
    log.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "train", "step": 15')  # torn by a crash
    log = json_lines(tmp_path, sizes)
    log.write("evaluation", 200, {"run": 2.0})
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = [(line["kind"], line["step"], line["run"]) for line in lines]
    assert found == [("train", 100, 1.0), ("train", 200, 1.0), ("evaluation", 200, 2.0)]


def test_a_value_per_task_must_name_every_task():
    with pytest.raises(ValueError, match="zip"):
        flatten({"success": np.zeros(3)}, TASKS)


def test_without_a_terminal_there_is_one_line_per_evaluation(capsys):
    console = Console(1000, TASKS)
    for step in range(0, 500, 10):
        console.status(step, num_updates=0)
    console.evaluation(500, np.array([0.25, 0.75]), np.array([1.0, 3.0]))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("500/1,000 steps (50.0%)")
    assert "success 0.500, worst 0.25 reach" in line
    assert "return 2.0" in line


def test_time_left_is_that_of_learning_and_not_of_random_steps(capsys, monkeypatch):
    clock = iter([100.0, 110.0, 110.0, 120.0, 120.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    console = Console(1000, TASKS)
    console.status(0, num_updates=0)  # at 100 s
    console.evaluation(500, np.zeros(2), np.zeros(2))  # at 110 s: 50 random steps a second
    console.status(500, num_updates=1)  # at 110 s: learning begins
    console.evaluation(600, np.zeros(2), np.zeros(2))  # at 120 s: 10 steps a second, 400 to go
    first, second = capsys.readouterr().out.splitlines()
    assert "50 steps/s | ? left" in first
    assert "10 steps/s | 40s left" in second


def test_on_a_terminal_the_status_line_is_redrawn_in_place(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    Console(1000, TASKS).status(10, num_updates=1)
    printed = capsys.readouterr().out
    assert printed.startswith("\r\033[K10/1,000 steps")
    assert "\n" not in printed


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.6, "1m 00s"), (3661.0, "1h 01m"), (90_000.0, "1d 1h"), (125.0, "2m 05s")]
)
def test_durations_are_written_in_two_units(seconds, text):
    assert duration(seconds) == text


def test_heat_map_colours():
    image = heat_map(np.array([[1.0, -1.0], [0.0, np.nan]]))
    assert image.shape == (256, 256, 3)
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[0, -1].tolist() == [0, 0, 255]
    assert image[-1, 0].tolist() == image[-1, -1].tolist() == [255, 255, 255]


def test_heat_map_of_other_matrices_takes_their_largest_entry_as_limit():
    assert _limit("critic_cosine", np.full((2, 2), 0.1)) == 1
    assert _limit("critic_transference", np.array([[0.1, -0.2], [np.nan, 0.0]])) == 0.2
    assert _limit("critic_transference", np.zeros((2, 2))) == 1
    assert heat_map(np.array([[0.1, -0.2], [0.0, 0.2]]), 0.2)[0, -1].tolist() == [0, 0, 255]


def test_progress_has_a_line_at_each_tenth_where_nobody_watches(capsys, monkeypatch):
    clock = iter([0.0, 30.0, 60.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress(2000)
    for episodes in (100, 50, 50, 100, 300):
        progress.add(episodes)
    progress.close()
    # 200 of 2000 in 30 s: 270 s for the others; 600 in 60 s: 140 s
    assert capsys.readouterr().err.splitlines() == [
        "0/2,000 episodes",
        "200/2,000 episodes | 4m 30s left",
        "600/2,000 episodes | 2m 20s left",
    ]


def test_progress_is_one_line_on_a_terminal_and_gone_at_the_end(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = Progress(2000)
    progress.add(1)
    progress.close()
    error = capsys.readouterr().err
    assert error.startswith("\r\033[K0/2,000 episodes\r\033[K1/2,000 episodes | ")
    assert error.endswith(" left\r\033[K")
    assert "\n" not in error


def test_warnings_are_lines_on_standard_error_and_come_once(capsys, monkeypatch):
    for _ in range(2):
        show_warnings()
    logger = logging.getLogger("mtrl.envs.worker_pool")
    logger.warning("worker %d restarted", 1)
    logger.debug("with a long traceback")
    assert capsys.readouterr() == ("", "warning: worker 1 restarted\n")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    logger.warning("worker 2 restarted")
    assert capsys.readouterr().err == "\r\033[Kwarning: worker 2 restarted\n"  # over the line that tells the progress


def test_complaints_come_at_once_and_then_once_a_minute_together(monkeypatch):
    clock = iter([1000.0, 1001.0, 1059.9, 1060.0, 1200.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    said = []
    complaints = Complaints(said.append)
    for name, number in (("a", 28), ("a", 28), ("b", 30), ("c", 28), ("a", 28)):
        complaints.add(OSError(number, os.strerror(number), name))
    full, read_only = "No space left on device", "Read-only file system"
    assert said == [
        f"warning: cannot write {files}; training goes on, and writing is tried again"
        for files in (f"a ({full})", f"a ({full}), b ({read_only}), c ({full})", f"a ({full})")
    ]


@pytest.mark.parametrize("problem", [BrokenPipeError(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_run_goes_on_where_its_output_cannot_be_written(monkeypatch, problem):
    def fail(text):
        raise problem

    monkeypatch.setattr("sys.stdout", SimpleNamespace(write=fail, isatty=lambda: False))
    Console(1000, TASKS).line("text")
