"""What a run is said to cost, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mtrl import cli, cost
from mtrl.assembly import make_agent
from mtrl.envs.toy import make

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TINY = ["--network.hidden-dims", "8", "--agent.batch-size", "8"]


def toy():
    return make("toy", None, seed=0, goal_seed=0, envs_per_task=2, workers=None)


def said_time(capsys, monkeypatch, argv, *, update, step, device=CPU):
    """Return what is printed where an update and a vector step take that many seconds."""
    monkeypatch.setattr(cost, "seconds_per_update", lambda *_: update)
    monkeypatch.setattr(cost, "seconds_per_vector_step", lambda _: step)
    settings = cli.parse(argv)
    env = make("toy", None, seed=0, goal_seed=0, envs_per_task=settings.trainer.envs_per_task, workers=None)
    cost.say_time(settings, lambda: pytest.fail("is not needed"), env, device)
    return capsys.readouterr().out


def test_memory_is_that_of_all_transitions(capsys):
    # 4 tasks x 20,000 transitions of 6 + 6 observation, 2 action, reward and terminated = 16 floats of 4 bytes: 4.9 MiB
    cost.say_memory(cli.parse(["--env", "toy"]), toy().spec, CPU, CUDA)
    assert capsys.readouterr().out == (
        "4 tasks x 2 environments, learner on cpu, replay of 20,000 transitions per task: 5 MiB on cuda\n"
    )


@pytest.mark.parametrize(
    ("envs_per_task", "total", "evaluations"),
    [
        # 40,000 / 4 = 10,000 vector steps x 0.02 s + (10,000 - 100 random) updates x 0.1 s = 1190 s, and
        # 40,000 / 4000 = 10 evaluations of 5 goals x 50 steps at 0.02 s = 50 s.
        (1, "19m 50s", "50s"),
        # Half as many of both: 5000 x 0.02 s + (5000 - 50) x 0.1 s = 595 s; half the time for half the copies.
        (2, "9m 55s", "25s"),
    ],
)
def test_time_is_that_of_all_steps_and_of_updates_after_the_warm_up(
    capsys, monkeypatch, envs_per_task, total, evaluations
):
    argv = ["--env", "toy", "--total-steps", "40000", "--warmup-steps", "100", "--envs-per-task", str(envs_per_task)]
    said = said_time(capsys, monkeypatch, argv, update=0.1, step=0.02)
    assert said == (
        "one update takes 100.0 ms and one step of all environments 20.0 ms: "
        f"40,000 environment steps will take at most about {total}, evaluations {evaluations}\n"
    )


def test_a_resumed_run_is_told_what_is_left(capsys, monkeypatch):
    monkeypatch.setattr(cost, "seconds_per_update", lambda *_: 0.1)
    monkeypatch.setattr(cost, "seconds_per_vector_step", lambda _: 0.0)
    settings = cli.parse(["--env", "toy", "--total-steps", "40000", "--envs-per-task", "1"])
    cost.say_time(settings, lambda: pytest.fail("is not needed"), toy(), CPU, steps_done=36_000)
    # 4000 / 4 = 1000 updates of 0.1 s, and none of the random steps
    assert "4,000 environment steps will take at most about 1m 40s" in capsys.readouterr().out


def test_a_run_that_ends_in_its_warm_up_costs_no_updates(capsys, monkeypatch):
    argv = ["--env", "toy", "--total-steps", "400", "--warmup-steps", "1000", "--envs-per-task", "1"]
    said = said_time(capsys, monkeypatch, argv, update=5.0, step=0.1)
    assert "about 10s" in said
    assert "nothing will be learned: the first 4,000 environment steps are random" in said


@pytest.mark.parametrize(
    ("env", "update", "device", "is_named"),
    [
        ("mt10", 1.0, CPU, True),
        ("mt10:reach-v3", 1.0, CPU, True),
        ("mt10", 1.0, CUDA, False),
        ("mt10", 0.001, CPU, False),  # 5 million vector steps of the 4 toy tasks: below 12 hours
        ("mt25", 1.0, CPU, True),  # it has none of its own
    ],
)
def test_a_long_run_without_a_gpu_is_told_of_the_preset_sized_for_that(
    capsys, monkeypatch, env, update, device, is_named
):
    said = said_time(capsys, monkeypatch, ["--env", env], update=update, step=0.001, device=device)
    assert ("--preset mt10_cpu" in said) == is_named


def test_an_update_is_timed_on_a_whole_batch_after_one_to_warm_up(monkeypatch):
    agent = make_agent(cli.parse(["--env", "toy", *TINY]), toy().spec, CPU)
    update, batches = agent.update, []
    monkeypatch.setattr(agent, "update", lambda batch: (batches.append(batch), update(batch))[1])
    clock = iter([0.0, 9.0, 10.0, 11.0, 20.0, 23.0, 30.0, 32.0])  # 9 s to warm up, then 1, 3 and 2 s
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert cost.seconds_per_update(lambda: agent, toy().spec, 8, CPU) == 2.0
    assert len(batches) == 4
    assert batches[0].obs.shape == (4, 8, 6)
    assert batches[0].task[:, 0].tolist() == [0, 1, 2, 3]


def test_measuring_a_step_makes_the_same_steps_everywhere():
    # What episodes a run begins with must not depend on how fast the machine is.
    env, twin = toy(), toy()
    assert cost.seconds_per_vector_step(env) > 0
    assert cost.seconds_per_vector_step(twin) > 0
    assert np.array_equal(env.reset(), twin.reset())
