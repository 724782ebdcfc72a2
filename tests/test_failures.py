"""Whole runs in which something fails: what is said, the exit code, and what is left."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtrl import envs
from mtrl.agents.losses import td_target
from mtrl.agents.mtsac import MTSAC
from mtrl.checkpoint import latest, load
from mtrl.nonfinite import NonFiniteError
from mtrl.train import main
from mtrl.trainer import Trainer
from scripts import reproduce_update
from scripts.compare_runs import saved_rows
from tests.envs.fakes import NUM_GOALS
from tests.envs.faulty import TIMEOUT
from tests.envs.harness import TASK_NAMES, wait_until_gone
from tests.test_train import children_of, records, steps_saved, unchanged_process  # noqa: F401 - a fixture

# Vector steps are 6 environment steps; the 5th one fails: after 24. The last checkpoint before is at 18.
FAULTY = [
    *("--envs-per-task", "2", "--workers", "2", "--total-steps", "60", "--warmup-steps", "6", "--eval-every", "0"),
    *("--eval-goals", "3", "--log-every", "12", "--checkpoint-every", "18"),
    *("--device", "cpu", "--network.hidden-dims", "8", "--agent.batch-size", "2"),
]

# Vector steps are 4 environment steps; updates come from step 40 on.
TOY = [
    *("--env", "toy", "--aggregator", "aligned", "--envs-per-task", "1", "--total-steps", "80"),
    *("--warmup-steps", "10", "--eval-every", "0"),
    *("--log-every", "20", "--checkpoint-every", "20", "--device", "cpu"),
    *("--network.hidden-dims", "8", "--agent.batch-size", "2"),
]


@pytest.fixture
def run_dir(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def run_faulty(capsys, monkeypatch, run_dir):
    """Run the suite of that fault; return exit code and what was said on stderr."""

    def run(fault: str, *argv: str) -> tuple[int, str]:
        suite = envs._Suite("tests.envs.faulty:make", TASK_NAMES, NUM_GOALS)
        monkeypatch.setitem(envs._REGISTRY, f"faulty_{fault}", suite)
        before = children_of(os.getpid())
        code = main(["--env", f"faulty_{fault}", *FAULTY, "--run-dir", str(run_dir), *argv])
        started = tuple(set(children_of(os.getpid())) - set(before))
        assert wait_until_gone(started)
        return code, capsys.readouterr().err

    return run


def assert_can_go_on(run_dir: Path, error: str, saved: int, logged: int, until: int) -> None:
    """The last checkpoint is whole and said, what was recorded is on the disk, and the run can continue."""
    assert f"the last checkpoint is of step {saved}; continue from it with --resume {run_dir}" in error
    assert steps_saved(run_dir) == saved
    assert records(run_dir, "train")[-1]["step"] == logged
    events = EventAccumulator(str(run_dir))
    events.Reload()
    assert events.Scalars("skipped_updates")[-1].step == logged
    assert main(["--resume", str(run_dir), "--total-steps", str(until)]) == 0
    assert steps_saved(run_dir) == until


# Rows are dealt out in turn: with two environments per task `east` has the rows 2 and 3, with three 3 to 5.
WORKER = r"worker 1 \(pid \d+\)"
WORKER_FAULTS = [
    ("raising", rf"task 'east', env 1: 'step' failed in {WORKER}: ValueError: the 10\d broke in two lines"),
    ("hanging", rf"task 'east', env 1: {WORKER} hangs, no answer to 'step' within {TIMEOUT:g} s"),
    ("killed", rf"task 'east', env 1: {WORKER} was killed by SIGKILL"),
]


@pytest.mark.parametrize(("fault", "sentence"), WORKER_FAULTS)
def test_a_worker_that_fails_costs_its_rows_of_one_step(run_faulty, run_dir, fault, sentence):
    code, error = run_faulty(f"{fault}_once")
    assert code == 0
    line = rf"warning: {sentence}; restarted as pid \d+ in .* s with new episodes, failure 1 of the 1 that are .*\n"
    assert re.fullmatch(line, error)
    checkpoint = latest(run_dir / "checkpoints")
    assert checkpoint is not None
    # 10 vector steps x 2 environments, of which environment 1 of every task lives in the worker
    assert [len(rows) for rows in saved_rows(checkpoint)] == [19, 19, 19]
    restarts = [line["worker_restarts"] for line in records(run_dir, "train")]
    assert restarts == [0, 0, 1, 1, 1]  # at 12, 24, 36, 48 and 60 steps; it failed in the step after 24
    assert [records(run_dir, "train")[-1][f"invalid_steps/{task}"] for task in TASK_NAMES] == [1, 1, 1]
    assert main(["--resume", str(run_dir), "--total-steps", "72"]) == 0
    assert records(run_dir, "train")[-1]["worker_restarts"] == 1
    assert records(run_dir, "train")[-1]["invalid_steps/east"] == 1


@pytest.mark.parametrize(("fault", "sentence"), WORKER_FAULTS)
def test_a_worker_that_fails_once_too_often_ends_a_run_that_loses_nothing_learned(
    run_faulty, run_dir, fault, sentence, caplog
):
    code, error = run_faulty(fault)
    assert code == 4
    assert re.match(rf"\nerror: {sentence}, failure 1 within 10 minutes, after 24 environment steps\n\n", error)
    assert ("Traceback" in error) == (fault == "raising")
    checkpoint = latest(run_dir / "checkpoints")
    assert checkpoint is not None
    # 4 vector steps, the last one after the record of 18
    assert [len(rows) for rows in saved_rows(checkpoint)] == [8, 8, 8]
    assert load(checkpoint, "env")["envs"] is None
    assert_can_go_on(run_dir, error, saved=24, logged=24, until=36)
    assert "the episodes were lost with the environments' processes; new ones begin" in caplog.messages
    # 2 vector steps more, of which the first says that the episodes before have broken off
    checkpoint = latest(run_dir / "checkpoints")
    assert checkpoint is not None
    assert [len(rows) for rows in saved_rows(checkpoint)] == [10, 10, 10]


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        ("nan_reward", 3, "reward of task 'east', environment 1 is nan"),
        ("infinite_reward", 3, "reward of task 'east', environment 1 is inf"),
        ("nan_obs", 3, "observation of task 'east', environment 1, component 2 is nan"),
    ],
)
def test_a_failing_step_is_named_and_the_run_can_go_on(run_faulty, run_dir, fault, code, sentence):
    found, error = run_faulty(fault)
    assert found == code
    assert re.match(rf"\nerror: {sentence}, after 24 environment steps\n\n", error)
    assert_can_go_on(run_dir, error, saved=18, logged=24, until=30)


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        ("raising", 4, rf"task 'east', env 2: 'step' failed in {WORKER}: ValueError: .*"),
        ("raising_at_reset", 4, rf"task 'east', env 2: 'reset' failed in {WORKER}: ValueError: stuck, .*"),
        ("raising_at_construction", 4, rf"task 'east', env 2: 'start' failed in {WORKER}: ValueError: no room"),
        ("nan_reward", 3, "reward of task 'east', environment 2 is nan"),
        ("nan_at_reset", 3, "observation of task 'east', environment 2, component 2 is nan"),
    ],
)
def test_a_failing_evaluation_is_named_and_costs_nothing_learned(run_faulty, run_dir, fault, code, sentence):
    found, error = run_faulty(f"{fault}_in_evaluation", "--eval-every", "24")
    assert found == code
    assert re.match(rf"\nerror: {sentence}, in the evaluation after 24 environment steps\n\n", error)
    assert f"the last checkpoint is of step 24; continue from it with --resume {run_dir}" in error
    assert steps_saved(run_dir) == 24
    assert records(run_dir, "evaluation") == []


def test_an_environment_that_cannot_be_built_leaves_nothing(run_faulty, run_dir):
    code, error = run_faulty("raising_at_construction")
    assert code == 4
    assert re.match(rf"\nerror: task 'east', env 1: 'start' failed in {WORKER}: ValueError: no room\n\n", error)
    assert not run_dir.exists()


def test_an_environment_that_cannot_start_its_first_episode_is_named(run_faulty):
    code, error = run_faulty("raising_at_reset")
    assert code == 4
    assert re.match(rf"\nerror: task 'east', env 1: 'reset' failed in {WORKER}: ValueError: stuck, .*\n\n", error)


def test_a_first_observation_that_is_no_number_is_named_before_anything_is_done(run_faulty, run_dir):
    code, error = run_faulty("nan_at_reset")
    assert code == 3
    assert error == (
        "\nerror: observation of task 'east', environment 1, component 2 is nan, after 0 environment steps\n\n"
        "there is no checkpoint to continue from yet; start the run again\n"
    )


def test_numbers_of_a_step_that_is_not_valid_are_neither_stored_nor_counted(run_faulty, run_dir):
    code, error = run_faulty("unstable")
    assert (code, error) == (0, "")
    checkpoint = latest(run_dir / "checkpoints")
    assert checkpoint is not None
    rows = saved_rows(checkpoint)
    assert [len(rows_of_task) for rows_of_task in rows] == [
        20,
        19,
        20,
    ]  # 10 vector steps x 2 environments, one left out
    assert all(np.isfinite(rows_of_task).all() for rows_of_task in rows)
    assert [records(run_dir, "train")[-1][f"invalid_steps/{task}"] for task in TASK_NAMES] == [0, 1, 0]
    assert all(line["train_return/east"] is not None for line in records(run_dir, "train")[1:])


# ---- the learner


def no_number_at(call: int, method, spoil):
    """Return `method`, whose result is spoilt at that call (counted from 1)."""
    calls = []

    def spoilt(*args):
        calls.append(args)
        result = method(*args)
        if len(calls) == call:
            spoil(args, result)
        return result

    return spoilt


def spoil_action(args, action):
    action[2, 0, 1] = torch.nan


def test_an_action_that_is_no_number_is_named(capsys, monkeypatch, run_dir):
    monkeypatch.setattr(MTSAC, "act", no_number_at(3, MTSAC.act, spoil_action))
    assert main([*TOY, "--run-dir", str(run_dir)]) == 3
    # The policy acts from step 40 on; its third action follows two vector steps of 4.
    sentence = "error: action of task 'reach-west', environment 0, component 1 is nan, after 48 environment steps\n"
    error = capsys.readouterr().err
    assert sentence in error
    assert_can_go_on(run_dir, error, saved=40, logged=40, until=60)


@pytest.mark.parametrize(
    ("problem", "words"),
    [(OSError("no space"), "no space"), (NonFiniteError("critic loss is nan"), "critic loss is nan")],
)
def test_what_cannot_be_saved_does_not_hide_the_failure(run_faulty, monkeypatch, problem, words):
    def save(trainer):
        raise problem

    monkeypatch.setattr(Trainer, "save", save)
    found, error = run_faulty("raising_in_evaluation", "--eval-every", "24", "--checkpoint-every", "0")
    assert found == 4
    assert f"in the evaluation (and it could not be saved: {words}) after 24 environment steps\n" in error


def test_an_action_that_is_no_number_in_an_evaluation_saves_no_broken_agent(capsys, monkeypatch, run_dir):
    monkeypatch.setattr(MTSAC, "act_deterministic", no_number_at(3, MTSAC.act_deterministic, spoil_action))
    assert main([*TOY, "--eval-every", "48", "--run-dir", str(run_dir)]) == 3
    error = capsys.readouterr().err
    assert "component 1 is nan, in the evaluation after 48 environment steps\n" in error
    assert_can_go_on(run_dir, error, saved=40, logged=40, until=60)


def target_without_numbers(*args):
    target = td_target(*args)
    target[2] = torch.nan
    return target


def loss_without_gradient(self, shared, private, inputs, /, loss=MTSAC._critic_loss):
    value, metrics = loss(self, shared, private, inputs)
    constant = 0 * value + (inputs.task[0] != 2)  # 0 for reach-west: the root has a value there, and no slope
    return value + constant.sqrt(), metrics


def noise_without_numbers(self, batch, generator, inputs=MTSAC._actor_inputs):
    found = inputs(self, batch, generator)
    found.noise[1] = torch.inf
    return found


def lose_temperature(args, _):
    args[0].log_alpha[3] = torch.nan


MEASURED = 4
"""Updates of a throw-away agent, to say what the run will cost."""


@pytest.mark.parametrize(
    ("name", "spoilt", "update", "step", "what"),
    [
        ("td_target", target_without_numbers, 1, 44, "critic loss of reach-west"),
        ("MTSAC._critic_loss", loss_without_gradient, 1, 44, "critic gradient of reach-west"),
        ("MTSAC._actor_inputs", noise_without_numbers, 1, 44, "actor loss of reach-north"),
        (
            "MTSAC.update",
            no_number_at(MEASURED + 3, MTSAC.update, lose_temperature),
            4,
            56,
            "temperature of reach-south; critic loss of reach-south; actor loss of reach-south",
        ),
    ],
)
def test_what_is_no_number_in_an_update_is_named(capsys, monkeypatch, run_dir, name, spoilt, update, step, what):
    with monkeypatch.context() as patch:
        patch.setattr(f"mtrl.agents.mtsac.{name}", spoilt)
        assert main([*TOY, "--run-dir", str(run_dir)]) == 3
    error = capsys.readouterr().err
    assert error.startswith(
        f"\nerror: not finite in update {update}: {what} (--on-nonfinite skip leaves such updates out), "
        f"after {step} environment steps\n\n"
    )
    saved = (step - 1) // 20 * 20
    assert_can_go_on(run_dir, error, saved=saved, logged=saved, until=saved + 20)


def test_stopping_and_saving_loses_nothing_learned_and_begins_new_episodes(run_faulty, run_dir):
    code, error = run_faulty("nan_reward", "--on-nonfinite", "save")
    assert code == 3
    assert error.startswith("\nerror: reward of task 'east', environment 1 is nan, after 24 environment steps\n\n")
    assert_can_go_on(run_dir, error, saved=24, logged=24, until=36)


def test_an_update_that_is_not_finite_can_be_repeated_from_its_file(capsys, monkeypatch, run_dir):
    monkeypatch.setattr("mtrl.agents.mtsac.td_target", target_without_numbers)
    assert main([*TOY, "--on-nonfinite", "save", "--run-dir", str(run_dir)]) == 3
    error = capsys.readouterr().err
    file = run_dir / "nonfinite" / "1.pt"
    assert f"\n\nrepeat that update: python scripts/reproduce_update.py {file}\n\n" in error
    assert f"the last checkpoint is of step 44; continue from it with --resume {run_dir}" in error
    reproduce_update.main([str(file)])
    assert capsys.readouterr().out == "critic loss of reach-west\n"
    monkeypatch.undo()
    reproduce_update.main([str(file)])
    assert capsys.readouterr().out == "everything is finite\n"


def test_a_file_that_is_not_there_cannot_be_repeated(capsys, run_dir):
    with pytest.raises(SystemExit) as caught:
        reproduce_update.main([str(run_dir / "1.pt")])
    assert caught.value.code == 2
    assert f"{run_dir / '1.pt'}: no such file; expected RUN/nonfinite/UPDATE.pt" in capsys.readouterr().err
