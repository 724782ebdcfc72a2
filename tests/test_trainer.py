"""The loop, with the real toy suite, replay and agent, small enough for seconds."""

import copy

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtrl.checkpoint import latest, load
from mtrl.episodes import EpisodeStatistics
from mtrl.interfaces import BrokenEnvError, Step
from mtrl.nonfinite import NonFiniteError
from mtrl.schedule import Config
from mtrl.signals import StopRequest
from scripts.compare_runs import differences
from tests.small_runs import TASKS, assert_same_state, build, records, train


@pytest.mark.parametrize("synchronous", [False, True])
def test_counts_follow_the_configuration(tmp_path, synchronous):
    trainer = train(tmp_path / "run", synchronous=synchronous)
    # 400 environment steps are 100 vector steps of 2 tasks x 2 copies; the first 50 per task, 25 vector steps, are
    # random. Updates begin beside the step after these, or, if synchronous, after the last of them.
    assert trainer.step_count == 400
    assert trainer.learner.update_count == 100 - 25 + synchronous
    assert trainer.replay.size.tolist() == [200, 200]


def test_updates_per_step_multiply_the_updates(tmp_path):
    trainer = train(tmp_path / "run", total_steps=120, updates_per_step=2)
    assert trainer.learner.update_count == 2 * (30 - 25)


def test_random_actions_fill_the_box(tmp_path):
    trainer = build(tmp_path / "run")
    actions = np.stack([trainer._act() for _ in range(250)])
    trainer.close()
    # 250 uniform numbers in each place: their mean has a standard deviation of 2 / sqrt(12 * 250) = 0.037.
    assert abs(actions.mean(0)).max() < 5 * 0.037
    assert actions.min(0).max() < -0.9
    assert actions.max(0).min() > 0.9
    assert abs(actions).max() <= 1


def test_records_come_at_every_multiple_and_the_end(tmp_path):
    train(tmp_path / "run", total_steps=450)
    assert [line["step"] for line in records(tmp_path / "run", "train")] == [100, 200, 300, 400, 452]
    assert [line["step"] for line in records(tmp_path / "run", "evaluation")] == [200, 400, 452]


def test_nothing_is_recorded_twice_where_the_end_is_a_multiple(tmp_path):
    train(tmp_path / "run")
    assert [line["step"] for line in records(tmp_path / "run", "train")] == [100, 200, 300, 400]
    assert [line["step"] for line in records(tmp_path / "run", "evaluation")] == [200, 400]


def test_tensorboard_shows_what_the_run_directory_promises(tmp_path):
    train(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0})
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    per_task = (
        "success", "success_at_end", "return", "train_success", "train_return", "critic_loss", "actor_loss",
        "temperature", "q", "entropy", "critic_weight", "actor_weight", "critic_gradient_norm", "actor_gradient_norm",
    )  # fmt: skip
    overall = (
        "success/mean", "success/worst", "return/mean", "condition_number/critic", "condition_number/actor",
        "condition_number_after/critic", "condition_number_after/actor", "conflict_share/critic",
        "magnitude_similarity/critic", "magnitude_similarity_after/actor",
        "direction_norm/actor", "speed/env_steps_per_second", "speed/updates_per_second", "time_share/critic",
        "time_share/environments",
    )  # fmt: skip
    assert {f"{name}/{task}" for name in per_task for task in TASKS} <= scalars
    assert set(overall) <= scalars
    assert {"critic_cosine", "actor_cosine"} <= set(events.Tags()["images"])
    lines = {line["step"]: line for line in records(tmp_path / "run", "train")}
    for point in events.Scalars("critic_loss/reach-west"):
        assert point.value == pytest.approx(lines[point.step]["critic_loss/reach-west"], rel=1e-5)


def test_the_condition_number_is_one_after_alignment(tmp_path):
    train(tmp_path / "run")
    line = records(tmp_path / "run", "train")[-1]
    assert line["condition_number/critic"] > 1.01
    assert line["condition_number_after/critic"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("aggregator", "stop_at"),
    [("mean", 260), ("aligned", 260), ("pcgrad", 260), ("mean", 60)],  # the last one among the random steps
)
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(tmp_path, aggregator, stop_at):
    whole = train(tmp_path / "whole", aggregator=aggregator)

    first = build(tmp_path / "parts", aggregator=aggregator)
    stop = StopRequest()
    step = first._advance

    def stop_in_the_middle_of_an_episode():
        step()
        if first.step_count == stop_at:
            stop._receive(2, None)

    first._advance = stop_in_the_middle_of_an_episode
    first.run(stop)
    first.close()
    assert stop.exit_code == 130
    checkpoint = latest(tmp_path / "parts" / "checkpoints")
    assert checkpoint is not None
    assert int(checkpoint.name) == stop_at
    second = build(tmp_path / "parts", aggregator=aggregator, resume_from=checkpoint)
    second.run(StopRequest())
    second.close()
    assert differences(whole.run_dir, second.run_dir) == []


def test_a_signal_before_the_first_step_saves_and_records_nothing(tmp_path):
    trainer = build(tmp_path / "run")
    stop = StopRequest()
    stop._receive(2, None)
    trainer.run(stop)
    trainer.close()
    checkpoint = latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert load(checkpoint, "trainer")["step_count"] == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""


def test_logging_and_evaluating_more_often_changes_nothing_learned(tmp_path):
    rare = train(tmp_path / "rare", aggregator="pcgrad", log_every=400, eval_every=0)
    often = train(tmp_path / "often", aggregator="pcgrad", log_every=20, eval_every=40)
    assert_same_state(rare.agent.state_dict(), often.agent.state_dict())


def run_until_a_signal_in_the_first_evaluation(trainer):
    stop = StopRequest()
    act = trainer.agent.act_deterministic

    def act_until_the_signal(obs):
        stop._receive(15, None)
        return act(obs)

    trainer.agent.act_deterministic = act_until_the_signal
    trainer.run(stop)
    trainer.close()
    return stop


def test_an_environment_that_fails_in_an_evaluation_does_not_cost_what_was_learned(tmp_path):
    trainer = build(tmp_path / "run", checkpoint_every=0)

    def fail(tasks, copies):
        raise RuntimeError("worker 0 died")

    trainer.make_eval_env = fail
    with pytest.raises(RuntimeError, match="worker 0 died"):
        trainer.run(StopRequest())
    trainer.close()
    checkpoint = latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert load(checkpoint, "trainer")["step_count"] == 200


def test_a_signal_during_an_evaluation_ends_it_and_the_run_is_saved(tmp_path):
    trainer = build(tmp_path / "run")
    stop = run_until_a_signal_in_the_first_evaluation(trainer)
    assert stop.exit_code == 143
    assert trainer.step_count == 200  # where the first evaluation is due
    assert records(tmp_path / "run", "evaluation") == []
    checkpoint = latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "000000000200"


def test_seeds_differ(tmp_path):
    first, second = train(tmp_path / "a", seed=0), train(tmp_path / "b", seed=1)
    a, b = (trainer.agent.state_dict()["actor"]["shared"]["hidden.0.weight"] for trainer in (first, second))
    assert not torch.equal(a, b)


def parameters(trainer):
    state = trainer.agent.state_dict()
    return [state[name]["shared"] for name in ("actor", "critic", "target")] + [state["temperature"]["log_alpha"]]


def poison(trainer):
    """Make every stored reward of the second task not a number."""
    trainer.replay._storage[1, :, 6 + 2] = torch.nan


def test_a_reward_that_is_no_number_stops_the_run_and_names_component_and_task(tmp_path):
    trainer = build(tmp_path / "run")
    for _ in range(30):
        trainer._vector_step()
    poison(trainer)
    with pytest.raises(NonFiniteError, match="critic loss of reach-west"):
        trainer.run(StopRequest())
    trainer.close()


def test_skipping_counts_such_updates_and_goes_on(tmp_path):
    trainer = build(tmp_path / "run", on_nonfinite="skip")
    for _ in range(30):
        trainer._vector_step()
    before = copy.deepcopy(parameters(trainer))
    poison(trainer)
    trainer.learner.update()
    assert trainer.learner.skipped_updates == 1
    assert_same_state(parameters(trainer), before)
    trainer.close()


def test_updates_that_are_not_finite_are_counted_once_even_if_looked_at_late(tmp_path):
    # As on a GPU, where nobody looks between two records: two bad updates out of three are both counted and named.
    trainer = build(tmp_path / "run", on_nonfinite="skip")
    for _ in range(30):
        trainer._vector_step()
    trainer.learner._device = torch.device("meta")  # not the CPU, so that looking waits
    update = trainer.agent.update
    flags = iter([[False, True], [False, False], [True, False]])
    trainer.agent.update = lambda batch: update(batch) | {"actor_nonfinite": torch.tensor(next(flags))}
    trainer.learner._sample = lambda: trainer.replay.sample(8)
    for _ in range(3):
        trainer.learner.update()
    assert trainer.learner.skipped_updates == 0
    trainer.learner.check_finite()
    assert trainer.learner.skipped_updates == 2
    trainer.learner.check_finite()
    assert trainer.learner.skipped_updates == 2
    trainer.close()


def test_a_step_with_a_reward_that_is_no_number_is_neither_stored_nor_counted(tmp_path):
    trainer = build(tmp_path / "run")
    for _ in range(3):
        trainer._vector_step()
    stored, counted = copy.deepcopy(trainer.replay.state_dict()), copy.deepcopy(trainer._episodes.state_dict())
    step_wait = trainer.env.step_wait
    trainer.env.step_wait = lambda: step_wait()._replace(reward=np.full((2, 2), np.nan, np.float32))
    with pytest.raises(NonFiniteError, match="reward of task 'reach-east', environment 0 is nan") as error:
        trainer.run(StopRequest())
    trainer.close()
    assert error.value.__notes__ == ["after 12 environment steps"]
    assert_same_state(trainer.replay.state_dict(), stored)
    assert_same_state(trainer._episodes.state_dict(), counted)


def test_an_evaluation_cut_by_a_signal_is_made_up_for_on_resuming(tmp_path):
    trainer = build(tmp_path / "run", total_steps=200)
    run_until_a_signal_in_the_first_evaluation(trainer)
    assert records(tmp_path / "run", "evaluation") == []
    second = build(tmp_path / "run", total_steps=200, resume_from=latest(tmp_path / "run" / "checkpoints"))
    second.run(StopRequest())
    second.close()
    assert [line["step"] for line in records(tmp_path / "run", "evaluation")] == [200]


def test_a_finished_run_is_not_evaluated_again_on_resuming(tmp_path):
    # The last step, 400, is a checkpoint's, and no evaluation's.
    train(tmp_path / "run", eval_every=300, checkpoint_every=400)
    checkpoint = latest(tmp_path / "run" / "checkpoints")
    second = build(tmp_path / "run", resume_from=checkpoint, eval_every=300, checkpoint_every=400)
    second.run(StopRequest())
    second.close()
    assert [line["step"] for line in records(tmp_path / "run", "evaluation")] == [300, 400]


def test_an_agent_need_not_tell_of_numbers_that_are_not_finite(tmp_path):
    trainer = build(tmp_path / "run")
    update = trainer.agent.update
    trainer.agent.update = lambda batch: {k: v for k, v in update(batch).items() if not k.endswith("_nonfinite")}
    trainer.run(StopRequest())
    trainer.close()
    assert trainer.step_count == 400
    assert trainer.learner.skipped_updates == 0


def test_the_budget_is_two_million_steps_per_task_by_default(tmp_path):
    trainer = build(tmp_path / "run", total_steps=None)
    assert trainer.total_steps == 4_000_000
    trainer.close()


def step_of_first_task(success, reward, ended, valid=True):
    column = np.zeros((2, 1))
    return Step(
        obs=column[..., None].astype(np.float32),
        final_obs=column[..., None].astype(np.float32),
        reward=np.array([[reward], [0.0]], dtype=np.float32),
        terminated=np.zeros((2, 1), dtype=bool),
        truncated=np.array([[ended], [False]]),
        success=np.array([[success], [True]]),
        goal=np.zeros((2, 1), dtype=np.int64),
        valid=np.array([[valid], [True]]),
        info=np.zeros((2, 1, 0)),
    )


def test_episodes_that_broke_off_are_neither_failed_nor_solved():
    statistics = EpisodeStatistics(num_tasks=2, envs_per_task=1)
    # A solved episode of return 1 + 2 breaks off; then one of return 4, not solved; then one of 8 breaks off.
    for success, reward, ended, valid in (
        (True, 1.0, False, True),
        (False, 2.0, False, True),
        (False, np.nan, True, False),
        (False, 4.0, True, True),
        (False, 8.0, False, True),
        (False, 0.0, True, False),
    ):
        statistics.add(step_of_first_task(success, reward, ended, valid))
    values = statistics.pop()
    np.testing.assert_array_equal(values["train_success"], [0, np.nan])
    np.testing.assert_array_equal(values["train_return"], [4, np.nan])
    np.testing.assert_array_equal(values["invalid_steps"], [2, 0])
    statistics.add(step_of_first_task(False, 0.0, True, False))
    np.testing.assert_array_equal(statistics.pop()["invalid_steps"], [3, 0])  # in the whole run


def test_episode_statistics_count_any_success_and_whole_returns():
    statistics = EpisodeStatistics(num_tasks=2, envs_per_task=1)

    # Two episodes of the first task: returns 1 + 2 + 4 = 7, solved in the middle; then 8, not solved.
    for success, reward, ended in ((False, 1.0, False), (True, 2.0, False), (False, 4.0, True), (False, 8.0, True)):
        statistics.add(step_of_first_task(success, reward, ended))
    values = statistics.pop()
    np.testing.assert_array_equal(values["train_success"], [0.5, np.nan])
    np.testing.assert_array_equal(values["train_return"], [7.5, np.nan])
    assert np.isnan(statistics.pop()["train_success"]).all()


@pytest.mark.parametrize(("name", "value"), [("total_steps", 0), ("eval_goals", 0), ("workers", 0), ("seed", -1)])
def test_a_config_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        Config(**{name: value})


@pytest.mark.parametrize("synchronous", [False, True])
def test_updates_know_the_transitions_of_their_vector_step_only_if_synchronous(tmp_path, monkeypatch, synchronous):
    trainer = build(tmp_path / "run", synchronous=synchronous, total_steps=160, eval_every=0, checkpoint_every=0)
    known = []
    monkeypatch.setattr(trainer.learner, "update", lambda: known.append(int(trainer.replay.size[0])))
    trainer.run(StopRequest())
    trainer.close()
    # Vector steps are counted from 1, and each leaves two transitions of every task.
    steps = range(25, 41) if synchronous else range(26, 41)
    assert known == [2 * step if synchronous else 2 * (step - 1) for step in steps]


def test_a_run_that_learns_after_its_steps_continues_exactly_too(tmp_path):
    whole = train(tmp_path / "whole", synchronous=True)
    train(tmp_path / "parts", synchronous=True, total_steps=180)
    parts = train(tmp_path / "parts", synchronous=True, resume_from=latest(tmp_path / "parts" / "checkpoints"))
    assert_same_state(whole.agent.state_dict(), parts.agent.state_dict())


def test_environments_that_fail_beside_an_update_that_is_not_finite_are_not_hidden(tmp_path, monkeypatch):
    trainer = build(tmp_path / "run")
    for _ in range(30):
        trainer._vector_step()

    def fail(*_):
        raise BrokenEnvError("the environments are gone")

    def diverge():
        raise NonFiniteError("the loss is nan")

    monkeypatch.setattr(trainer.env, "step_wait", fail)
    monkeypatch.setattr(trainer.learner, "update", diverge)
    with pytest.raises(BrokenEnvError) as error:
        trainer.run(StopRequest())
    trainer.close()
    assert isinstance(error.value.__context__, NonFiniteError)
