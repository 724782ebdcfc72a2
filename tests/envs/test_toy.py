import numpy as np
import pytest

from mtrl.envs.toy import DIRECTIONS, make
from mtrl.envs.toy_tasks import GROUP_TASKS, TASKS


def build(name="toy", tasks=None, seed=0, goal_seed=0, envs_per_task=2, workers=None):
    return make(name, tasks, seed=seed, goal_seed=goal_seed, envs_per_task=envs_per_task, workers=workers)


def toward_goal(obs):
    """A policy that knows the task: accelerate to the goal and brake on arrival."""
    direction = 0.7 * np.array([DIRECTIONS[task] for task in TASKS])[:, None]
    return 10 * (direction + obs[..., 4:6] - obs[..., :2] - obs[..., 2:4])


def test_every_task_has_a_direction():
    assert tuple(DIRECTIONS) == TASKS + GROUP_TASKS


def test_the_same_first_observation_asks_for_opposite_actions():
    env = build()
    obs = env.reset(np.zeros((4, 2), dtype=int))
    assert not obs[..., :4].any()  # position and velocity alike in all tasks
    actions = toward_goal(obs)[:, 0]
    assert actions[0] @ actions[2] < 0
    assert actions[1] @ actions[3] < 0


def test_the_right_policy_solves_every_goal_and_no_action_solves_none():
    for policy, expected in ((toward_goal, True), (lambda obs: np.zeros((4, 50, 2)), False)):
        env = build(envs_per_task=50)
        step = env.step(policy(env.reset(np.tile(np.arange(50), (4, 1)))))
        for _ in range(49):
            step = env.step(policy(step.obs))
        assert step.truncated.all()
        assert (step.success == expected).all()


def test_families_ask_for_opposite_actions_where_they_see_the_same():
    direction = 0.7 * np.array([DIRECTIONS[task] for task in GROUP_TASKS])[:, None]
    assert all(a[0] @ b[0] > 0 for a in direction for b in direction)  # all goals lie on one side
    for signs, expected in (((1, 1, 1, -1, -1, -1), True), ((1,) * 6, [[True]] * 3 + [[False]] * 3)):
        env = build("toy_groups", envs_per_task=50)
        obs = env.reset(np.tile(np.arange(50), (6, 1)))
        solved = []
        for _ in range(50):
            action = 10 * (direction + obs[..., 4:6] - obs[..., :2] - obs[..., 2:4])
            step = env.step(np.array(signs)[:, None, None] * action)
            obs = step.obs
            solved.append(step.success)
        assert (solved[-1] == expected).all()


def test_episodes_are_cut_after_50_steps_and_never_terminate():
    env = build()
    env.reset()
    for time in range(1, 101):
        step = env.step(np.zeros((4, 2, 2)))
        assert (step.truncated == (time % 50 == 0)).all()
        assert not step.terminated.any()


def test_final_obs_is_the_true_successor_and_obs_starts_the_next_episode():
    env = build()
    env.reset()
    step = [env.step(np.ones((4, 2, 2))) for _ in range(50)][-1]
    assert (step.final_obs[..., :2] > 0.9).all()  # ran into the corner
    assert not step.obs[..., :4].any()  # back at the start


def test_goal_belongs_to_the_episode_of_the_step():
    env = build()
    first = np.arange(8).reshape(4, 2)
    env.reset(first)
    goals = [env.step(np.zeros((4, 2, 2))).goal.copy() for _ in range(51)]
    assert (goals[49] == first).all()
    assert (goals[50] != first).any()


def test_goal_streams_of_tasks_and_copies_differ():
    env = build()
    draws = []
    for _ in range(20):
        env.reset()
        draws.append(env.step(np.zeros((4, 2, 2))).goal.reshape(-1).copy())
    streams = np.array(draws).T
    assert len({tuple(stream) for stream in streams}) == 8


def goals_visited(tasks):
    """Return the goals of 20 episodes by the name of the task."""
    env = build(tasks=tasks)
    visited = []
    for _ in range(20):
        env.reset()
        visited.append(env.step(np.zeros((env.spec.num_tasks, 2, 2))).goal)
    return dict(zip(env.spec.task_names, np.stack(visited, axis=1).tolist(), strict=True))


def test_a_task_visits_the_same_goals_among_other_tasks():
    part = goals_visited(("reach-west", "reach-east"))
    assert part == {task: goals for task, goals in goals_visited(TASKS).items() if task in part}


def test_goals_depend_on_goal_seed_and_not_on_seed_or_the_other_tasks():
    def offsets(**options):
        env = build(**options)
        count = env.spec.num_tasks
        return env.reset(np.full((count, 2), 3))[..., 4:]

    assert np.array_equal(offsets(seed=0), offsets(seed=1))
    assert not np.array_equal(offsets(goal_seed=0), offsets(goal_seed=1))
    assert np.array_equal(offsets()[2:3], offsets(tasks=("reach-west",)))


TRANSFORMED = {
    "toy_scaled": {
        "reach-north": lambda r: 100 * r,
        "reach-west": lambda r: np.exp(5 * r),
        "reach-south": lambda r: np.sign(r) * r**4,
    },
    "toy_exp": {"reach-west": lambda r: np.exp(5 * r)},
    "toy_power": {"reach-south": lambda r: np.sign(r) * r**4},
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_rewards_are_increasing_functions_of_the_plain_ones(name):
    plain, transformed = build("toy"), build(name)
    plain.reset()
    transformed.reset()
    generator = np.random.default_rng(0)
    rewards = []
    for _ in range(50):
        action = generator.uniform(-1, 1, (4, 2, 2))
        rewards.append((plain.step(action).reward.copy(), transformed.step(action).reward.copy()))
    first, second = (np.array(column).transpose(1, 0, 2).reshape(4, -1) for column in zip(*rewards, strict=True))
    for index, task in enumerate(TASKS):
        order = np.argsort(first[index], kind="stable")
        assert (np.diff(second[index][order]) >= 0).all(), task
        expected = TRANSFORMED[name].get(task, lambda r: r)(first[index].astype(float))
        np.testing.assert_allclose(second[index], expected, rtol=1e-4, err_msg=task)


def test_state_restores_the_middle_of_an_episode_exactly():
    env, twin = build(), build(seed=9)
    env.reset()
    generator = np.random.default_rng(1)
    for _ in range(30):
        env.step(generator.uniform(-1, 1, (4, 2, 2)))
    obs = twin.set_state(env.get_state())
    for _ in range(60):  # crosses into an episode with a drawn goal
        action = generator.uniform(-1, 1, (4, 2, 2))
        ours, theirs = env.step(action), twin.step(action)
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert obs.shape == (4, 2, 6)


def test_wrong_actions_and_goals_are_refused_by_name():
    env = build()
    env.reset()
    action = np.zeros((4, 2, 2))
    action[1, 0, 1] = np.nan
    with pytest.raises(ValueError, match=r"nan.*'reach-north', env 0, is not finite"):
        env.step(action)
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2\), expected .* \(4, 2, 2\)"):
        env.step(np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match="goal 50 for task 'reach-east', env 1, expected 0 to 49"):
        env.reset(np.array([[0, 50]] * 4))
    with pytest.raises(ValueError, match=r"shape \(1, 2\), expected integers of shape \(4, 2\)"):
        env.reset(np.zeros((1, 2), int))


@pytest.mark.parametrize("numbers", [{"envs_per_task": 0}, {"workers": 0}])
def test_numbers_below_one_are_refused(numbers):
    with pytest.raises(ValueError, match=f"{next(iter(numbers))} is 0, expected 1 or more"):
        build(**numbers)


@pytest.mark.parametrize("others", [{"tasks": TASKS[::-1]}, {"envs_per_task": 3}])
def test_a_state_of_others_is_refused(others):
    with pytest.raises(ValueError, match=r"the state is of tasks and envs per task .*, expected .*'reach-east'"):
        build().set_state(build(**others).get_state())


def test_there_is_nothing_to_see_and_nothing_further_to_tell():
    env = build()
    env.reset()
    assert env.spec.cameras == env.spec.info_names == ()
    assert env.step(np.zeros((4, 2, 2))).info.shape == (4, 2, 0)
    with pytest.raises(NotImplementedError, match="nothing to see"):
        env.render()
