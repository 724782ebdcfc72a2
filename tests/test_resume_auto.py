"""One command line for the start of a run and for every time it is started again: `--resume auto`."""

import json
import signal

import pytest
import torch

from mtrl import cli
from mtrl.checkpoint import latest, load
from mtrl.signals import HANDLED
from mtrl.train import build, main
from tests.small_runs import assert_same_state

TOY = [
    *("--env", "toy", "--envs-per-task", "1", "--total-steps", "400", "--warmup-steps", "50", "--device", "cpu"),
    *("--eval-every", "200", "--eval-goals", "2", "--log-every", "40", "--checkpoint-every", "100"),
    *("--network.hidden-dims", "8", "--agent.batch-size", "8"),
]


@pytest.fixture(autouse=True)
def unchanged_process(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def steps_in(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "train"]


def refusal(capsys, *argv):
    with pytest.raises(SystemExit) as caught:
        main([*map(str, argv)])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_one_line_begins_goes_on_and_finds_the_run_done(capsys, tmp_path):
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    line = [*TOY, "--resume", "auto", "--run-dir", str(parts)]
    assert main([*line, "--max-hours", "1e-9"]) == 0  # time is up at once
    assert f"--max-hours 1e-09: saved at step 0 in {parts}" in capsys.readouterr().out
    assert main(line) == 0
    assert main([*TOY, "--run-dir", str(whole)]) == 0
    found, expected = (latest(run / "checkpoints") for run in (parts, whole))
    assert found is not None
    assert expected is not None
    for part in ("agent", "replay", "env"):
        assert_same_state(load(found, part), load(expected, part))
    capsys.readouterr()
    assert main(line) == 0
    assert "already at step 400 of 400" in capsys.readouterr().out


def test_a_run_that_had_saved_nothing_begins_anew(tmp_path):
    run_dir = tmp_path / "run"
    line = [*TOY, "--resume", "auto", "--run-dir", str(run_dir)]
    assert main(line) == 0
    for checkpoint in (run_dir / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / checkpoint.name)
    before = steps_in(run_dir)
    assert main(line) == 0
    assert steps_in(run_dir) == before


def test_another_setting_is_refused_and_named(capsys, tmp_path):
    run_dir = tmp_path / "run"
    line = [*TOY, "--resume", "auto", "--run-dir", str(run_dir)]
    assert main([*line, "--max-hours", "1e-9"]) == 0
    written = (run_dir / "config.yaml").read_text()
    message = refusal(capsys, *line, "--seed", 1)
    assert "--seed is 1" in message
    assert "was started with 0" in message
    assert (run_dir / "config.yaml").read_text() == written


def test_it_needs_the_folder(capsys):
    assert "--resume auto needs --run-dir" in refusal(capsys, *TOY, "--resume", "auto")


def test_a_folder_that_holds_no_run_is_not_taken(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    message = refusal(capsys, *TOY, "--resume", "auto", "--run-dir", tmp_path)
    assert "is not empty; it holds thesis.tex and no config.yaml; name another" in message


def test_a_folder_with_no_more_than_a_torn_start_and_the_outputs_of_a_scheduler_is_taken(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    for name in (".partial-17-config.yaml", "slurm-17.out", "slurm-17.err", "lock"):
        (run_dir / name).write_text("")
    assert main([*TOY, "--resume", "auto", "--run-dir", str(run_dir)]) == 0


def test_what_was_saved_after_the_command_was_read_is_continued(tmp_path):
    line = [*TOY, "--resume", "auto", "--run-dir", str(tmp_path / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtrl.trainer.Trainer.run", lambda *_: None)  # a start that is killed before it saves
        assert main(line) == 0
    early = cli.parse(line)
    assert early.replaces_run
    assert main([*line, "--max-hours", "1e-9"]) == 0
    saved = latest(tmp_path / "run" / "checkpoints")
    trainer = build(early)
    trainer.close()
    assert trainer._checkpoint == saved
    assert steps_in(tmp_path / "run") == []
