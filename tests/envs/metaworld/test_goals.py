"""Our goals are those of Meta-World's benchmarks, bit for bit, and so are our names."""

import hashlib
import pickle

import metaworld
import numpy as np
import pytest
from metaworld import env_dict

from mtrl.envs.metaworld.goals import GOAL_SPACES, goal_vectors
from mtrl.envs.metaworld.tasks import BENCHMARKS, MT10, MT25, MT50, NUM_GOALS

STOCK_DIGESTS = {
    ("mt10", 0): "c1603b2c045ae375c876be92b0935d7587e33805a919a01b5fb721627c850c57",
    ("mt10", 7): "1e912bc83955a30526bc99ddfbda7c22c6215f4aceb4b8f531dba62697de60c8",
    ("mt25", 0): "bf11555761e3b7a449b30604d84360560e33ba0e3c6873126aaec6241758c62b",
    ("mt50", 0): "78d969c3f728fcceeab26350e73ee3849cf1e394efb49fee2dd8446e9f0e9f50",
    ("mt50", 7): "c763b9fd9db76aaf50e06f7819df559a06fcf88107d5ffb1b54677fdb86aa4f4",
}
"""SHA-256 of all goals in benchmark order, recorded from the stock constructors (scripts/check_goals.py compares)."""


def test_task_names_are_those_of_metaworld_in_its_order():
    assert tuple(env_dict.MT10_V3) == MT10
    assert tuple(env_dict.MT25_V3) == MT25
    assert tuple(env_dict.MT50_V3) == MT50
    assert tuple(GOAL_SPACES) == MT50


@pytest.mark.parametrize(("suite", "seed"), STOCK_DIGESTS)
def test_goals_have_the_digest_of_the_stock_benchmark(suite, seed):
    goals = goal_vectors(suite, BENCHMARKS[suite], seed)
    digest = hashlib.sha256(b"".join(vectors.tobytes() for vectors in goals.values()))
    assert digest.hexdigest() == STOCK_DIGESTS[suite, seed]


def stock_goals(benchmark):
    goals = {}
    for task in benchmark.train_tasks:
        goals.setdefault(task.env_name, []).append(pickle.loads(task.data)["rand_vec"])
    return {name: np.stack(vectors) for name, vectors in goals.items()}


def assert_equal_goals(suite, seed, benchmark):
    stock = stock_goals(benchmark)
    ours = goal_vectors(suite, stock, seed)
    for name, vectors in stock.items():
        np.testing.assert_array_equal(ours[name], vectors, err_msg=name)


@pytest.mark.mujoco
@pytest.mark.parametrize("task", ["push-v3", "sweep-into-v3"])
def test_goals_equal_those_of_stock_mt1(task):
    assert_equal_goals("mt1", 3, metaworld.MT1(task, seed=3))


@pytest.mark.mujoco
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suite", ["mt10", "mt25", "mt50"])
def test_goals_equal_those_of_the_stock_benchmark(suite):
    benchmark = {"mt10": metaworld.MT10, "mt25": metaworld.MT25, "mt50": metaworld.MT50}[suite]
    assert_equal_goals(suite, 1, benchmark(seed=1))


def test_a_subset_keeps_the_goals_of_its_benchmark():
    whole = goal_vectors("mt10", MT10, 0)
    part = goal_vectors("mt10", ("window-open-v3", "push-v3"), 0)
    assert list(part) == ["window-open-v3", "push-v3"]
    for name, vectors in part.items():
        np.testing.assert_array_equal(vectors, whole[name])


def test_goals_are_distinct_and_depend_on_benchmark_and_seed():
    goals = goal_vectors("mt10", MT10, 0)["push-v3"]
    assert len(np.unique(goals, axis=0)) == NUM_GOALS
    assert (goals != goal_vectors("mt50", MT50, 0)["push-v3"]).any()
    assert (goals != goal_vectors("mt10", MT10, 1)["push-v3"]).any()


def test_drawing_goals_leaves_the_global_generator_alone():
    state = np.random.get_state
    before = pickle.dumps(state())
    goal_vectors("mt10", MT10, 0)
    assert pickle.dumps(state()) == before
