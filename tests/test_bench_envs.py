"""The benchmark of the environments steps all variants through the same states, and judges by the right numbers."""

import argparse
import importlib.util
import subprocess
import sys

import metaworld
import numpy as np
import pytest

from scripts.bench_envs import main, mistake, one_core_targets, speed_table
from scripts.env_envpool import public_name
from scripts.env_startup import empty_cache, start_native, start_stock
from scripts.env_turns import Speed, check_states, overhead, take_turns
from scripts.env_variants import Block, Clock, EnvPool, Native, Physics, Stock, stock_arguments

ENV = "mt10:reach-v3"
NUM_EPISODE_STEPS = 500


def blocks(*, wall, cpu, workers_cpu=0.0, ends=(False, False)):
    """Return a round of two blocks of two vector steps each."""
    return [Block(np.array(wall), cpu, workers_cpu, has_ends) for has_ends in ends]


def test_speeds_are_of_single_environments():
    # Two blocks of two vector steps, five rows: 20 steps in 2 x (1 + 3) s of wall time and 2 x 6 s of CPU time.
    speed = Speed(5, [blocks(wall=[1.0, 3.0], cpu=6.0)])
    assert speed.wall() == [0.4]
    assert speed.cpu() == [0.6]


def test_rates_are_compared_round_by_round():
    slow = Speed(1, [blocks(wall=[2.0, 2.0], cpu=8.0), blocks(wall=[9.0, 9.0], cpu=40.0)])
    fast = Speed(1, [blocks(wall=[1.0, 1.0], cpu=2.0), blocks(wall=[3.0, 3.0], cpu=10.0)])
    row = next(line for line in speed_table({"slow": slow, "fast": fast}, "slow", True) if line.startswith("| fast"))
    # Wall: medians of (1, 3) s and of (2/1, 9/3) times; CPU: medians of (1, 5) s and of (4/1, 20/5) times.
    assert row == "| fast | 0 | 1 | 2000000.0 | 3000000.0 | 1000000.0 | 2.50 | 4.00 |"


def test_what_is_beyond_the_physics_leaves_out_ends_of_episodes():
    physics = Speed(10, [blocks(wall=[1e-3, 2e-3], cpu=3e-3)])
    native = Speed(10, [blocks(wall=[1.04e-3, 2.04e-3], cpu=9e-3, workers_cpu=3.02e-3)])
    native.rounds[0][1] = Block(np.array([1.0, 1.0]), 2.0, 2.0, has_ends=True)
    # 40 us of wall time each step; 20 us of CPU time in two steps. With the second block it would be 500,000.
    assert overhead(native, physics) == pytest.approx((40e-6, 10e-6))


def test_targets_are_judged():
    physics = Speed(10, [blocks(wall=[9e-4, 9e-4], cpu=1.8e-3)])
    share, wake_up = one_core_targets(Speed(10, [blocks(wall=[1e-3, 1e-3], cpu=2e-3, workers_cpu=1.9e-3)]), physics)
    assert "met, 90.0% in wall time, 90.0% in CPU time" in share
    assert "**missed**, 100 us of wall time" in wake_up
    assert "met in the worker's own CPU time, 50 us;" in wake_up
    # 1.8 of 2.12 ms; the median of what the two steps take longer, 300 and 20 us.
    share, wake_up = one_core_targets(Speed(10, [blocks(wall=[1.2e-3, 0.92e-3], cpu=2e-3)]), physics)
    assert "**missed**, 84.9%" in share
    assert "**missed**, 160 us" in wake_up
    _, wake_up = one_core_targets(Speed(10, [blocks(wall=[0.95e-3, 0.95e-3], cpu=2e-3)]), physics)
    assert "core, met, 50 us" in wake_up


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": ["toy"]}, "--env toy, expected a benchmark"),
        ({"env": ["mt10:reach-v2"]}, "reach-v3"),
        ({"steps": 0}, "--steps 0, expected 1 or more"),
        ({"goals": 51}, "--goals 51, expected at most 50"),
        ({"workers": [1, 0]}, "--workers 0"),
        ({"envpool_python": "no/such/python"}, "--envpool-python no/such/python"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    args = {"env": ["mt10"], "rounds": 1, "steps": 1, "goals": 0, "workers": [1], "envpool_python": sys.executable}
    assert mistake(argparse.Namespace(**args)) is None
    assert message in (mistake(argparse.Namespace(**args | changes)) or "")


def test_names_of_others():
    assert public_name("pick-place-v3") == "MetaWorld/PickPlace-v3"
    assert public_name("button-press-topdown-wall-v3") == "MetaWorld/ButtonPressTopdownWall-v3"
    assert stock_arguments("mt50") == ("Meta-World/MT50", {"seed": 0})
    assert stock_arguments(ENV) == ("Meta-World/custom-mt-envs", {"seed": 0, "envs_list": ["reach-v3"]})


@pytest.mark.skipif(sys.platform != "linux", reason="CPU clocks of other processes")
def test_the_clock_reads_the_cpu_time_of_other_processes():
    work = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(time.process_time(), flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = float(process.stdout.readline())
        assert found <= Clock([process.pid]).others() < found + 0.1  # what is left to it is printing and waiting


@pytest.mark.mujoco
@pytest.mark.timeout(180)  # compiles
def test_physics_and_stock_follow_the_native_engine_into_the_next_episode():
    leader = Native(ENV, workers=1, copies=2)
    followers = [Physics(ENV, leader, 2), Stock(ENV, leader, 2)]
    actions = np.random.default_rng(0).uniform(-1, 1, (NUM_EPISODE_STEPS + 8, 2, 4)).astype(np.float32)
    for part in np.split(actions, [NUM_EPISODE_STEPS - 3, NUM_EPISODE_STEPS, NUM_EPISODE_STEPS + 4]):
        block = leader.run(part)
        assert block.has_ends == leader.track.has_ended.any()
        assert all(len(follower.run(part).wall) == len(part) for follower in followers)
        check_states([leader, *followers])
    # One of them is told other actions.
    leader.run(actions[:2])
    followers[0].run(actions[:2])
    followers[1].run(-actions[:2])
    with pytest.raises(AssertionError, match=r"stock `env\.step` went astray"):
        check_states([leader, *followers])
    leader.close()


def rows_of(sections, monkeypatch, capsys):
    """Run the script with tiny settings; return the first cells of the tables."""
    monkeypatch.setattr(metaworld, "_N_GOALS", 1)
    arguments = f"bench_envs --env {ENV} --sections {sections} --rounds 1 --steps 2 --goals 1 --workers 1"
    monkeypatch.setattr(sys, "argv", arguments.split())
    main()
    return [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]


@pytest.mark.mujoco
@pytest.mark.timeout(180)  # compiles
@pytest.mark.filterwarnings("ignore")  # of Meta-World, about spaces
def test_all_variants_take_their_turns(monkeypatch, capsys):
    rows = rows_of("one-core all-cores", monkeypatch, capsys)
    assert rows[2:7] == ["native, 1 worker", "physics", "stock `env.step`", "stock `SyncVectorEnv`", "EnvPool"]
    assert rows[9:] == ["native, 1 worker", "stock `AsyncVectorEnv`", "EnvPool"]


@pytest.mark.slow
@pytest.mark.mujoco
@pytest.mark.timeout(300)  # compiles in an empty folder
@pytest.mark.filterwarnings("ignore")  # of Meta-World, about spaces
def test_every_other_section_has_its_table(monkeypatch, capsys):
    rows = rows_of("startup memory tasks", monkeypatch, capsys)
    assert rows[2:5] == ["native, empty caches", "native", "stock `AsyncVectorEnv`"]
    assert rows[7:9] == ["native, after 6 steps", "stock `AsyncVectorEnv`, after 2 steps"]
    assert rows[11:] == ["reach-v3", "**mean**"]


class Recorder:
    """Remembers the actions of every turn."""

    def __init__(self, name):
        self.name, self.turns, self.is_closed = name, [], False

    def run(self, actions):
        self.turns.append(actions)
        return Block(np.ones(len(actions)), 1.0)

    def close(self):
        self.is_closed = True


def test_all_take_the_same_turns_and_the_first_is_not_counted():
    variants = [Recorder("one"), Recorder("other")]
    found = take_turns(variants, rounds=2, steps=24, rows=3)
    for variant in variants:
        # A warm-up of twenty steps; then ten turns of 24 steps, twice.
        assert [len(turn) for turn in variant.turns] == [20, *([3] * 4 + [2] * 6) * 2]
        assert [[len(block.wall) for block in blocks] for blocks in found[variant.name].rounds] == [
            [3] * 4 + [2] * 6
        ] * 2
        assert variant.is_closed
    for turn, other in zip(variants[0].turns, variants[1].turns, strict=True):
        np.testing.assert_array_equal(turn, other)
    assert variants[0].turns[0].shape == (20, 3, 4)
    assert variants[0].turns[0].min() < -0.9


@pytest.mark.skipif(importlib.util.find_spec("envpool") is not None, reason="this interpreter has EnvPool")
def test_an_interpreter_without_envpool_is_no_error():
    assert EnvPool.if_installed(ENV, sys.executable) == []


@pytest.mark.slow
@pytest.mark.mujoco
@pytest.mark.timeout(300)  # compiles in an empty folder
def test_fresh_processes_tell_times_and_memory(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "kept")
    with empty_cache():
        found = start_native("mt10:reach-v3,push-v3", 2, num_steps=2)
    stock = start_stock(ENV, num_steps=1)
    for start, processes in ((found, 2), (stock, 1)):
        assert start.imports > 0
        assert start.start > 0
        # A worker maps NumPy and MuJoCo: more than 20 MB, and one environment needs less than a gigabyte.
        assert len(start.before) == len(start.after) == processes
        assert all(2e7 < size < 1e9 for size in (*start.before, *start.after))
