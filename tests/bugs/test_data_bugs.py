"""Published bugs of the way from environment to batch, put back one by one: each breaks a fact, and is caught.

A fact is checked on what the real trainer, workers and replay collect from environments whose data identifies itself.
"""

import numpy as np
import pytest

from mtrl.agents.mtsac import MTSAC
from mtrl.envs.worker_pool import MAX_RESTARTS, WorkerPool
from mtrl.envs.workers import WorkerVectorEnv
from mtrl.interfaces import EnvSpec, Step
from mtrl.replay import Replay
from mtrl.seeding import numpy_generator
from mtrl.trainer import Trainer
from tests.bugs.clockwork import (
    ACTION,
    CLOCK,
    ENV,
    GOAL,
    MARK,
    TERMINAL_TIME,
    TIME_LIMIT,
    clockwork,
    is_step,
    next_step,
)
from tests.bugs.collecting import Bug, collect, stored_rows
from tests.envs.fault_injection import FaultyFactory

NUM_TASKS, NUM_ENVS = 3, 2
VECTOR_STEPS = 25
SPEC = EnvSpec(
    task_names=("limited", "terminating", "unstable"),
    envs_per_task=NUM_ENVS,
    obs_dim=5,
    action_dim=1,
    max_episode_steps=TIME_LIMIT,
    num_goals=1000,
)


def train(**options: int) -> Trainer:
    return collect(WorkerVectorEnv(SPEC, clockwork, seed=0, workers=1), vector_steps=VECTOR_STEPS, **options)


# ---- facts


def every_successor_is_the_true_one() -> None:
    """The next observation follows from that observation and that action, also where an episode ends."""
    rows = stored_rows(train(random_steps=10).replay)  # then the policy acts, and learns
    assert len({float(row.obs[MARK]) for row in rows}) == TIME_LIMIT + TERMINAL_TIME + TIME_LIMIT
    for row in rows:
        assert row.next_obs[MARK] == row.obs[MARK] + 1, "next_obs is not the next of its episode"
        assert row.next_obs[[ENV, GOAL]].equal(row.obs[[ENV, GOAL]]), "next_obs is of another episode"
        assert row.next_obs[ACTION] == row.action, "next_obs does not follow from the action"
        assert row.reward == row.next_obs[MARK] + row.obs[ENV] / 8, "the reward is not that of the step"


def every_row_is_a_step_of_its_simulator() -> None:
    """Every step of every simulator that is a transition is stored once, and nothing else."""
    replay = train(random_steps=10).replay
    expected = [
        (task, env, clock)
        for task in range(NUM_TASKS)
        for env in range(NUM_ENVS)
        for clock in range(VECTOR_STEPS)
        if is_step(task, env, clock)
    ]
    rows = stored_rows(replay)
    assert all(row.next_obs[CLOCK] == row.obs[CLOCK] + 1 for row in rows), "a row during which no time passed"
    assert sorted((row.task, int(row.obs[ENV]), int(row.obs[CLOCK])) for row in rows) == expected, "rows are missing"
    assert replay.size.sum() == len(expected), "rows are stored twice"


def failures_leave_true_transitions() -> None:
    """Where workers die and hang and simulations break down, every row is still a step of one episode, and what is
    valid is stored once."""
    factory = FaultyFactory(make_env=clockwork, seed=0, p_crash=0.01, p_hang=0.005, p_nan=0.02)
    env = WorkerVectorEnv(SPEC, factory, seed=0, workers=2, timeout=2.0, max_restarts=100)
    num_valid, step_wait = [], env.step_wait

    def step_and_count() -> Step:
        found = step_wait()
        num_valid.append(found.valid.sum())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(env, "step_wait", step_and_count)
        replay = collect(env, vector_steps=60).replay
    assert env.worker_restarts > MAX_RESTARTS
    rows = stored_rows(replay)
    for row in rows:
        assert row.next_obs[MARK] == row.obs[MARK] + 1, "next_obs is not the next of its episode"
        assert row.next_obs[CLOCK] == row.obs[CLOCK] + 1, "next_obs is of another process"
        assert row.next_obs[[ENV, GOAL]].equal(row.obs[[ENV, GOAL]]), "next_obs is of another episode"
        assert row.next_obs[ACTION] == row.action, "next_obs does not follow from the action"
        assert row.reward == row.next_obs[MARK] + row.obs[ENV] / 8, "the reward is not that of the step"
    assert len(rows) == replay.size.sum() == sum(num_valid), "what is stored is not what is valid"


def time_limits_bootstrap() -> None:
    """The target of the last step before a time limit has a next value; after a terminal state there is none."""
    trainer = train()
    batch = trainer.replay.sample(500)
    time = batch.next_obs[..., MARK] % 100
    is_terminal = (batch.task == 1) & (time == TERMINAL_TIME)
    assert ((time == TIME_LIMIT) & ~is_terminal).any()
    assert is_terminal.any()
    assert isinstance(trainer.agent, MTSAC)
    target = trainer.agent._critic_inputs(batch, trainer.agent.generators["update"]).target
    assert (target == batch.reward).equal(is_terminal), "the bootstrap stops elsewhere than at terminal states"


def every_row_lies_under_its_task() -> None:
    """What a batch holds on axis 0 at i, and calls task i, happened in task i."""
    for row in stored_rows(train().replay):
        marks = row.obs[MARK], row.next_obs[MARK], row.reward
        assert [int(mark // 100) for mark in marks] == [row.task] * 3, "a row of another task"


def a_full_ring_holds_the_newest() -> None:
    """After wrapping, sampling brings up all of the newest `capacity` transitions."""
    capacity = 20
    rows = stored_rows(train(capacity=capacity).replay)
    for task in range(NUM_TASKS):
        happened = [
            (clock, env) for clock in range(VECTOR_STEPS) for env in range(NUM_ENVS) if is_step(task, env, clock)
        ]
        found = sorted((int(row.obs[CLOCK]), int(row.obs[ENV])) for row in rows if row.task == task)
        assert found == happened[-capacity:], f"{len(found)} rows, expected the newest {capacity}"


def every_env_visits_goals_of_its_own() -> None:
    """No two environments, of one task or two, go through the same sequence of goals."""
    rows = sorted(stored_rows(train().replay), key=lambda row: float(row.obs[CLOCK]))
    visited: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        if row.obs[MARK] % 100 == 0:
            visited.setdefault((row.task, int(row.obs[ENV])), []).append(int(row.obs[GOAL]))
    sequences = [goals[: VECTOR_STEPS // TIME_LIMIT] for goals in visited.values()]
    assert len(sequences) == NUM_TASKS * NUM_ENVS
    assert len({tuple(goals) for goals in sequences}) == len(sequences), "environments share their goals"


def arrays_may_be_reused() -> None:
    """The facts hold for an environment whose arrays are valid until its next call and not longer."""
    with pytest.MonkeyPatch.context() as patch:
        step, memory = WorkerVectorEnv.step, []

        def step_in_place(self: WorkerVectorEnv, action: np.ndarray) -> Step:
            found = step(self, action)
            memory[:] = memory or [found]
            for kept, array in zip(memory[0], found, strict=True):
                kept[:] = array
            return memory[0]

        patch.setattr(WorkerVectorEnv, "step", step_in_place)
        every_successor_is_the_true_one()


# ---- bugs


def the_reset_observation_is_the_next_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    """facebookresearch/mtrl and what is built on it (CAGrad, FAMO, FairGrad, DiBS): the vector environment resets by
    itself and the observation it returns is stored, once per episode of 150 steps."""
    add = Replay.add
    monkeypatch.setattr(
        Replay, "add", lambda self, obs, action, step: add(self, obs, action, step._replace(final_obs=step.obs))
    )


def truncation_is_termination(monkeypatch: pytest.MonkeyPatch) -> None:
    """metaworld-algorithms until 2026-05-19: an episode cut by its time limit did not bootstrap."""
    add = Replay.add

    def add_ends(self: Replay, obs: np.ndarray, action: np.ndarray, step: Step) -> None:
        add(self, obs, action, step._replace(terminated=step.terminated | step.truncated))

    monkeypatch.setattr(Replay, "add", add_ends)


def autoreset_is_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gymnasium 1.x, whose default is NEXT_STEP: the step after an end ignores its action and leads to the first
    observation of the next episode with reward 0. Stored unmasked, one such row per episode."""
    monkeypatch.setattr(
        "mtrl.envs.workers.WorkerPool",
        lambda rows, sizes, make_env, **options: WorkerPool(rows, sizes, next_step, **options),
    )


def rows_of_a_lost_worker_count_as_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is replaced, and what is stored does not know of it. Not published: others do not replace workers, but
    the same happens where an environment resets itself in mid-episode, as MuJoCo does."""
    add = Replay.add

    def add_all(self: Replay, obs: np.ndarray, action: np.ndarray, step: Step) -> None:
        is_lost = ~step.valid & np.isfinite(step.final_obs).all(-1)
        add(self, obs, action, step._replace(valid=step.valid | is_lost))

    monkeypatch.setattr(Replay, "add", add_all)


def all_tasks_share_one_goal_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta-World's make_mt_envs gives every environment the same seed, and so the same sequence of goal indices."""
    monkeypatch.setattr("mtrl.envs.workers.numpy_generator", lambda seed, *name: numpy_generator(seed, "goal"))


def copies_of_a_task_share_one_goal_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for several copies of one task, where a seed depends on the task alone."""
    monkeypatch.setattr("mtrl.envs.workers.numpy_generator", lambda seed, *name: numpy_generator(seed, *name[:2]))


def the_ring_never_becomes_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """metaworld-algorithms, ReplayBuffer.add: the position is compared with the capacity after the modulo, `full` is
    never set, and after wrapping only the newest prefix is sampled."""
    monkeypatch.setattr(Replay, "size", property(lambda self: self._added % self.capacity))


def rows_are_read_in_the_order_of_envs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of (env, task) rows taken for (task, env): no error, as all shapes are right. Not published, but the usual
    mistake of flat vector environments, where each has its own order."""
    add = Replay.add

    def misread(array: np.ndarray) -> np.ndarray:
        return array.swapaxes(0, 1).reshape(array.shape)

    def add_misread(self: Replay, obs: np.ndarray, action: np.ndarray, step: Step) -> None:
        add(self, misread(obs), misread(action), Step(*map(misread, step)))

    monkeypatch.setattr(Replay, "add", add_misread)


def batches_name_the_wrong_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of one task come with the one-hot of another. Not published."""
    sample = Replay.sample

    def sample_misnamed(self: Replay, batch_size: int):
        batch = sample(self, batch_size)
        return batch._replace(task=batch.task.flip(0))

    monkeypatch.setattr(Replay, "sample", sample_misnamed)


FACTS = [
    every_successor_is_the_true_one,
    arrays_may_be_reused,
    every_row_is_a_step_of_its_simulator,
    failures_leave_true_transitions,
    time_limits_bootstrap,
    every_row_lies_under_its_task,
    a_full_ring_holds_the_newest,
    every_env_visits_goals_of_its_own,
]
BUGS = [
    Bug(the_reset_observation_is_the_next_observation, every_successor_is_the_true_one, "not the next of its episode"),
    Bug(truncation_is_termination, time_limits_bootstrap, "bootstrap stops elsewhere"),
    Bug(autoreset_is_a_step, every_row_is_a_step_of_its_simulator, "during which no time passed"),
    Bug(rows_of_a_lost_worker_count_as_steps, failures_leave_true_transitions, "next_obs is not the next"),
    Bug(all_tasks_share_one_goal_stream, every_env_visits_goals_of_its_own, "share their goals"),
    Bug(copies_of_a_task_share_one_goal_stream, every_env_visits_goals_of_its_own, "share their goals"),
    Bug(the_ring_never_becomes_full, a_full_ring_holds_the_newest, "10 rows, expected the newest 20"),
    Bug(rows_are_read_in_the_order_of_envs, every_row_lies_under_its_task, "a row of another task"),
    Bug(batches_name_the_wrong_task, every_row_lies_under_its_task, "task is not that of its axis"),
]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.__name__)
def test_fact_holds(fact):
    fact()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.put_back.__name__)
def test_bug_is_caught(bug, monkeypatch):
    bug.put_back(monkeypatch)
    with pytest.raises(AssertionError, match=bug.symptom):
        bug.fact()
