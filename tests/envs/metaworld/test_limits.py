"""Shorter episodes and fewer goals of Meta-World."""

from contextlib import closing

import numpy as np
import pytest

from mtrl import cli, envs
from mtrl.envs import Config
from mtrl.evaluate_options import Options, plan

TASK = "drawer-close-v3"
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (8, 1, 1, 4)).astype(np.float32)


@pytest.mark.mujoco
@pytest.mark.parametrize("engine", ["native", "stock"])
def test_episodes_are_cut_earlier_and_are_otherwise_the_same(engine):
    options = {"engine": engine, "workers": 1}
    with (
        closing(envs.make(f"mt10:{TASK}", max_episode_steps=5, num_goals=1, **options)) as short,
        closing(envs.make(f"mt10:{TASK}", **options)) as whole,
    ):
        assert (short.spec.max_episode_steps, short.spec.num_goals) == (5, 1)
        assert np.array_equal(short.reset(), whole.reset(np.array([[0]])))
        state = None
        for index, action in enumerate(ACTIONS[:5]):
            if index == 3:
                state = short.get_state()
            ours, stock = short.step(action), whole.step(action)
            assert np.array_equal(ours.final_obs, stock.final_obs)
            assert (ours.reward, ours.success, ours.terminated) == (stock.reward, stock.success, stock.terminated)
            assert ours.truncated[0, 0] == (index == 4)
            assert not stock.truncated[0, 0]
        assert short.step(ACTIONS[5]).goal == [[0]]  # of the one goal, again
        assert not whole.step(ACTIONS[5]).truncated[0, 0]  # what is kept on disk of the reset knows no limit
        assert state is not None
        short.set_state(state)
        assert [bool(short.step(action).truncated[0, 0]) for action in ACTIONS[3:7]] == [False, True, False, False]


def test_other_suites_know_no_limits():
    with pytest.raises(ValueError, match="max_episode_steps and num_goals can be set for Meta-World only, not for"):
        envs.make("toy", max_episode_steps=5, num_goals=1)


def test_number_of_goals():
    assert envs.num_goals("mt10", Config(num_goals=3)) == 3
    assert envs.num_goals("mt10", Config(max_episode_steps=3)) == envs.num_goals("mt10") == 50


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--env", "toy", "--env.num-goals", "1"], "--env: num_goals can be set for Meta-World only"),
        (["--env", "mt10", "--env.num-goals", "51"], "--env.num-goals: must lie between 1 and 50, got 51"),
        (["--env", "mt10", "--env.max-episode-steps", "0"], "--env.max-episode-steps: must lie between 1 and 500"),
        (["--env", "mt10", "--env.num-goals", "2", "--eval-goals", "3"], "--eval-goals: expected at most 2"),
    ],
)
def test_limits_that_are_refused(argv, message):
    with pytest.raises(cli.UsageError, match=message):
        cli.read(argv)


def test_an_evaluation_of_the_run_has_its_goals(tmp_path):
    settings = cli.parse(["--preset", "legacy"])
    (tmp_path / "checkpoints" / "000000000000").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    scope = plan(Options(run=tmp_path)).scope
    assert (scope.num_goals, scope.is_whole) == (1, True)
    with pytest.raises(cli.UsageError, match="--goals: expected at most 1"):
        plan(Options(run=tmp_path, goals=2))
