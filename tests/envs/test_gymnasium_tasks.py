"""Gymnasium environments as tasks: equal to plain Gymnasium loops; padding, scaling, goals, state, errors."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from mtrl import checkpoint, envs
from mtrl.envs.gymnasium_tasks import DEFAULT_EPISODE_STEPS, find, goal_seeds
from mtrl.envs.workers import WorkerError, WorkerVectorEnv
from tests.envs import gymnasium_fakes
from tests.envs.test_workers import assert_equal_steps

CLASSIC = ("Pendulum-v1", "MountainCarContinuous-v0")
FAKES = f"{gymnasium_fakes.__name__}:fakes"


@contextmanager
def suite(*ids: str, **options: Any) -> Iterator[WorkerVectorEnv]:
    options = {"workers": 1} | options
    env = envs.make(f"gymnasium:{','.join(ids)}", **options)
    assert isinstance(env, WorkerVectorEnv)
    with env:
        yield env


def random_actions(env, num_steps, seed=0):
    """Return multiples of 1/1024: whatever the order of adding and multiplying, scaling them rounds nothing."""
    shape = (num_steps, env.spec.num_tasks, env.spec.envs_per_task, env.spec.action_dim)
    return np.random.default_rng(seed).integers(-1024, 1025, shape).astype(np.float32) / 1024


class PlainLoop:
    """One environment as a user of Gymnasium would step it."""

    def __init__(self, env_id: str, goal_seed: int) -> None:
        self.env = gymnasium.make(env_id)
        self.seeds = goal_seeds(env_id, goal_seed)

    def reset(self, goal: int) -> np.ndarray:
        return self.env.reset(seed=self.seeds[goal])[0].astype(np.float32)

    def step(self, action: np.ndarray) -> tuple:
        space = self.env.action_space
        assert isinstance(space, Box)
        scaled = space.low + (action[: space.shape[0]].astype(np.float64) + 1) / 2 * (space.high - space.low)
        obs, reward, terminated, truncated, _ = self.env.step(scaled.astype(np.float32))
        return obs.astype(np.float32), np.float32(reward), terminated, truncated


@pytest.mark.parametrize(
    ("ids", "num_steps", "ended_by"),
    [
        (CLASSIC, 420, {"Pendulum-v1": "truncated"}),
        pytest.param(("Hopper-v5", "Swimmer-v5"), 120, {"Hopper-v5": "terminated"}, marks=pytest.mark.mujoco),
    ],
)
def test_every_copy_in_the_workers_equals_a_plain_loop_bit_for_bit(ids, num_steps, ended_by):
    with suite(*ids, envs_per_task=2, workers=3, goal_seed=7) as env:
        obs = env.reset()
        steps = [env.step(action) for action in random_actions(env, num_steps)]
        for task, name in enumerate(ids):
            for copy in range(2):
                loop = PlainLoop(name, goal_seed=7)
                found, expected, has_ended = obs[task, copy], obs[task, copy], True
                for action, step in zip(random_actions(env, num_steps), steps, strict=True):
                    if has_ended:
                        expected = loop.reset(int(step.goal[task, copy]))
                    assert found[: len(expected)].tobytes() == expected.tobytes()
                    expected, reward, terminated, truncated = loop.step(action[task, copy])
                    assert step.final_obs[task, copy, : len(expected)].tobytes() == expected.tobytes()
                    assert not step.final_obs[task, copy, len(expected) :].any()
                    assert step.reward[task, copy] == reward
                    assert (step.terminated[task, copy], step.truncated[task, copy]) == (terminated, truncated)
                    found, has_ended = step.obs[task, copy], terminated or truncated
                loop.env.close()
        for name, end in ended_by.items():
            assert np.sum([getattr(step, end)[ids.index(name)] for step in steps]) >= 4
        assert all(step.valid.all() for step in steps)


# ---- spaces


def test_observations_are_padded_with_zeros_to_the_longest_and_surplus_actions_are_ignored():
    with suite(*CLASSIC, f"{FAKES}/Arm-v0") as env, suite(*CLASSIC, f"{FAKES}/Arm-v0") as other:
        assert (env.spec.obs_dim, env.spec.action_dim) == (5, 2)  # Arm: 2 angles, one of 3 phases; 2 actions
        assert env.spec.max_episode_steps == 999
        np.testing.assert_array_equal(env.reset(), other.reset())
        for action in random_actions(env, 5):
            changed = action.copy()
            changed[:2, :, 1:] = 0.123  # Pendulum and MountainCarContinuous have one action
            step = env.step(action)
            assert_equal_steps([step], [other.step(changed)])
            assert (step.obs[0, 0, :3] != 0).all()
            np.testing.assert_array_equal(step.obs[0, 0, 3:], 0)
            np.testing.assert_array_equal(step.obs[1, 0, 2:], 0)


@pytest.mark.parametrize(
    ("action", "arrived"),
    [
        ((-1, -1), (-3, 0)),
        ((1, 0.5), (1, 7.5)),
        ((0, 0), (-1, 5)),
        ((0.5, -0.5), (0, 2.5)),
        ((1.5, -7), (1, 0)),  # clipped
    ],
)
def test_actions_are_scaled_to_the_bounds_and_observations_flattened(action, arrived):
    # Bounds [-3, 1] x [0, 10]: centre (-1, 5), half width (2, 5).
    with suite(f"{FAKES}/Arm-v0") as env:
        obs = env.reset()
        np.testing.assert_array_equal(obs[0, 0, 2:], [1, 0, 0])  # in phase 0, after two angles
        step = env.step(np.array([[action]], np.float32))
        np.testing.assert_array_equal(step.final_obs[0, 0], [*arrived, 0, 1, 0])
        assert step.reward[0, 0] == 100 * arrived[0] + 1


def test_bounds_of_minus_one_and_one_leave_every_bit_of_an_action():
    numbers = np.array([1e-30, -1e-10, 0.1, np.nextafter(np.float32(1), 0), 1, -1], np.float32)
    with suite(f"{FAKES}/Echo-v0") as env:
        env.reset()
        for number in numbers:
            assert env.step(number.reshape(1, 1, 1)).obs[0, 0, 0] == number


@pytest.mark.parametrize(
    ("name", "solved"), [("Arm", [0, 1, 0, 1]), ("OtherArm", [0, 1, 0, 1]), ("SilentArm", [0, 0, 0, 0])]
)
def test_success_is_what_the_environment_reports(name, solved):
    with suite(f"{FAKES}/{name}-v0") as env:
        env.reset()
        assert [int(env.step(np.zeros((1, 1, 2), np.float32)).success[0, 0]) for _ in range(4)] == solved


def test_termination_and_time_limit_are_told_apart():
    with suite(f"{FAKES}/Arm-v0", envs_per_task=2) as env:
        env.reset()
        action = np.zeros((1, 2, 2), np.float32)
        assert [env.step(action).truncated.tolist() for _ in range(4)] == [[[False] * 2]] * 3 + [[[True] * 2]]
        action[0, 1, 1] = 1
        step = env.step(action)
        assert step.terminated.tolist() == [[False, True]]
        assert not step.truncated.any()


def test_an_environment_without_a_limit_is_cut_after_a_thousand_steps_and_this_is_said():
    with pytest.warns(UserWarning, match="'.*Endless-v0' is registered without max_episode_steps: .* 1,000 steps"):
        env = envs.make(f"gymnasium:{FAKES}/Endless-v0", workers=1)
    assert env.spec.max_episode_steps == DEFAULT_EPISODE_STEPS == 1000
    env.reset()
    ends = [bool(env.step(np.zeros((1, 1, 1), np.float32)).truncated) for _ in range(1000)]
    env.close()
    assert ends == [False] * 999 + [True]


# ---- goals


def test_a_goal_is_one_initial_state_whatever_else_the_run_has():
    goals = np.arange(50)[None]
    with suite(*CLASSIC, envs_per_task=50, workers=2, seed=3) as env:
        first = env.reset(np.repeat(goals, 2, axis=0))
    with suite("Pendulum-v1", envs_per_task=50) as env:
        again = env.reset(goals)
    with suite("Pendulum-v1", envs_per_task=50, goal_seed=1) as env:
        others = env.reset(goals)
    np.testing.assert_array_equal(first[0], again[0])
    assert len(np.unique(first[0], axis=0)) == len(np.unique(first[1], axis=0)) == 50
    assert (others != again).any(-1).all()


def test_goals_stay_what_they_were():
    # Pinned: another derivation of the seeds would give all tasks other initial states.
    assert goal_seeds("Pendulum-v1", 0)[:3] == (149018391, 1511433406, 10907699)
    assert not set(goal_seeds("Pendulum-v1", 0)) & {*goal_seeds("Pendulum-v1", 1), *goal_seeds("Hopper-v5", 0)}


# ---- state


def test_state_in_mid_episode_continues_bit_for_bit_with_another_number_of_workers(tmp_path):
    with suite(*CLASSIC, envs_per_task=3) as env, suite(*CLASSIC, envs_per_task=3, workers=4, seed=9) as fresh:
        env.reset()
        actions = random_actions(env, 500)
        for action in actions[:230]:  # Pendulum is in its second episode, MountainCarContinuous in its first
            env.step(action)
        checkpoint.save(tmp_path, 0, {"env": env.get_state()})
        state = checkpoint.load(tmp_path / f"{0:012d}", "env")
        assert [len(one["actions"]) for one in state["envs"]] == [30] * 3 + [230] * 3
        obs = fresh.set_state(state)
        np.testing.assert_array_equal(obs, state["obs"].reshape(2, 3, 3))
        for action in actions[230:]:
            assert_equal_steps([env.step(action)], [fresh.step(action)])


def test_state_at_the_start_of_an_episode_is_that_episode():
    with suite("Pendulum-v1") as env, suite("Pendulum-v1", goal_seed=1) as other:
        obs = env.reset()
        state = env.get_state()
        (action,) = random_actions(env, 1)
        step = env.step(action)
        env.reset()
        for restored in (env, other):
            np.testing.assert_array_equal(restored.set_state(state), obs)
            assert_equal_steps([restored.step(action)], [step])


def test_an_environment_that_its_seed_does_not_determine_is_not_restored_in_mid_episode():
    with suite(f"{FAKES}/Unseeded-v0") as env:
        env.reset()
        env.set_state(env.get_state())
        actions = random_actions(env, 3)
        for action in actions:
            env.step(action)
        message = r"Unseeded-v0', env 0: .*is not deterministic given its seed: after reset\(seed=\d+\) and 3 actions"
        with pytest.raises(WorkerError, match=message):
            env.set_state(env.get_state())


# ---- who is found where


def test_what_only_this_process_registered_is_built_in_the_workers_too():
    gymnasium.register("Here-v0", "gymnasium.envs.classic_control:PendulumEnv", kwargs={"g": 3.0}, max_episode_steps=7)
    try:
        with suite("Here-v0", "Pendulum-v1") as env:
            env.reset(np.zeros((2, 1), np.int64))
            steps = [env.step(np.zeros((2, 1, 1), np.float32)) for _ in range(7)]
    finally:
        del gymnasium.registry["Here-v0"]
    assert [step.truncated[:, 0].tolist() for step in steps] == [[False, False]] * 6 + [[True, False]]


@pytest.mark.parametrize("entry_point", [lambda: gymnasium_fakes.Plain(gymnasium_fakes.LINE), "__main__:Plain"])
def test_what_only_this_process_can_build_is_refused(monkeypatch, entry_point):
    monkeypatch.setattr(sys.modules["__main__"], "Plain", gymnasium_fakes.Plain, raising=False)
    gymnasium.register("Here-v0", entry_point, max_episode_steps=7)
    try:
        with pytest.raises(ValueError, match=r"'Here-v0' .* exist in this process only; expected .*module:id"):
            envs.make("gymnasium:Here-v0")
    finally:
        del gymnasium.registry["Here-v0"]


def test_some_of_the_tasks_keep_the_sizes_of_all():
    ids = (*CLASSIC, f"{FAKES}/Arm-v0")
    with suite(*ids) as whole, suite(*ids, only=CLASSIC[1:]) as part:
        assert part.spec.task_names == CLASSIC[1:]
        assert (part.spec.obs_dim, part.spec.action_dim) == (5, 2)
        goals = np.full((3, 1), 11)
        np.testing.assert_array_equal(part.reset(goals[:1])[0], whole.reset(goals)[1])
    with pytest.raises(ValueError, match=r"unknown task of .* 'Pendulum-v0'\. Did you mean 'Pendulum-v1'"):
        envs.make(f"gymnasium:{','.join(ids)}", only=("Pendulum-v0",))


def test_names_are_known_without_torch():
    code = (
        "import sys, mtrl.envs as envs;"
        "print(*envs.task_names('gymnasium:Pendulum-v1,phys2d/Pendulum-v0'), envs.num_goals('gymnasium:Hopper-v5'));"
        "print([name for name in ('torch', 'mujoco', 'metaworld') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["Pendulum-v1 phys2d/Pendulum-v0 50", "[]"]


def test_an_id_with_colons_is_found():
    spec = find("Pendulum-v1")
    gymnasium.registry["a:b/Pendulum-v1"] = spec
    try:
        assert find("a:b/Pendulum-v1") is spec
    finally:
        del gymnasium.registry["a:b/Pendulum-v1"]


# ---- errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gymnasium", "needs ids, as in 'gymnasium:Pendulum-v1,Hopper-v5'"),
        ("gymnasium:", "unknown Gymnasium environment ''"),
        ("gymnasium:Pendulm-v1", "unknown Gymnasium environment 'Pendulm-v1'. Did you mean Pendulum-v1?"),
        ("gymnasium:Pendulum", "Did you mean Pendulum-v1?"),
        ("gymnasium:fakes/Am-v0", "unknown Gymnasium environment 'fakes/Am-v0'. Did you mean fakes/Arm-v0?"),
        (f"gymnasium:{FAKES}/Am-v0", f"Did you mean {FAKES}/Arm-v0?"),
        ("gymnasium:no_such_module:Arm-v0", "cannot import module 'no_such_module': No module named 'no_such_module'"),
        ("gymnasium::Pendulum-v1", "expected the name of a module before ':', got ''"),
        ("gymnasium:Pendulum-v1,Pendulum-v1", "names Pendulum-v1 more than once"),
    ],
)
def test_an_invalid_name_says_what_is_expected(name, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared as text
        envs.check(name)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("task", "found", "expected"),
    [
        ("CartPole-v1", r"has the action space Discrete\(2\)", "a Box of floating point numbers with finite bounds"),
        (f"{FAKES}/Keys-v0", r"has the action space MultiDiscrete\(\[2 3\]\)", "a Box"),
        (f"{FAKES}/Steps-v0", r"has the action space Box\(0, 3, \(1,\), int64\)", "floating point"),
        (f"{FAKES}/Unbounded-v0", r"has the action space Box\(-inf, 1.0, \(1,\), float32\)", "finite bounds"),
        (f"{FAKES}/Web-v0", "has the observation space Graph", "gymnasium.spaces.utils.flatten turns into an array"),
        (f"{FAKES}/Failing-v0", "cannot be built: RuntimeError: no licence", "found"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_process_starts(monkeypatch, task, found, expected):
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ValueError, match=f"(?s)Gymnasium environment '{task}' {found}.*{expected}"):
        envs.make(f"gymnasium:Pendulum-v1,{task}")


@pytest.mark.parametrize(("option", "named"), [({"workers": 0}, "workers is 0"), ({"envs_per_task": 0}, "envs_per")])
def test_numbers_below_one_are_refused(option, named):
    with pytest.raises(ValueError, match=named):
        envs.make("gymnasium:Pendulum-v1", **option)
