"""The benchmark of whole updates compares like with like, and its floor counts what must be done."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mtrl.agents.mtsac import MTSAC
from scripts.bench_update import (
    ACTION_DIM,
    METHODS,
    OBS_DIM,
    Measured,
    Rates,
    Work,
    floor,
    least_work,
    make_agent,
    measure,
    random_batch,
    summary,
    table,
)
from scripts.update_by_loop import loop, own_passes, update_by
from tests.agents.small_agent import batch_for, build, parameters

TASKS, BATCH, HIDDEN = 3, 8, (6, 5)


@pytest.mark.parametrize("find", [loop, own_passes])
@pytest.mark.parametrize("method", METHODS)
def test_a_loop_makes_the_same_update(method, find):
    agent = build("mlp", method, critic_lr=3e-3, actor_lr=3e-3)
    assert_same_updates(agent, find)


@pytest.mark.parametrize("find", [loop, own_passes])
def test_a_loop_gives_private_parameters_their_own_gradient(find):
    assert_same_updates(build("multi_head", "aligned", critic_lr=3e-3, actor_lr=3e-3), find)


def assert_same_updates(agent: MTSAC, find) -> None:
    start = parameters(agent)
    other = copy.deepcopy(agent)
    for step in range(3):
        agent.update(batch_for(step))
        update_by(find, other, batch_for(step))
    ours, theirs = parameters(agent), parameters(other)
    # Other orders of summation in float32 leave 1e-5 of steps of 3e-3; a wrong gradient would turn signs of steps.
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
    assert all(float((ours[name] - start[name]).abs().max()) > 1e-5 for name in ours)


def test_the_floor_counts_the_products_that_an_update_makes():
    agent = make_agent(TASKS, HIDDEN, "cpu", "mean")
    batch = random_batch(TASKS, BATCH, "cpu")
    with FlopCounterMode(display=False) as counter:
        agent.update(batch)
    work = least_work(agent, TASKS, BATCH)
    counted = work.forward + work.input_gradient + work.weight_gradient
    # An update differentiates the critics' first layers by all inputs, of which only the actions are needed.
    surplus = 2 * TASKS * BATCH * 2 * HIDDEN[0] * (OBS_DIM + TASKS)
    assert counter.get_total_flops() == counted + surplus


def test_bytes_of_an_update_by_hand():
    # One hidden layer of 2 units, 3 tasks. Actor: 42 x 2 + 2 + 2 x 8 + 8 = 110 parameters; critics: 2 x (46 x 2 + 2 +
    # 2 + 1) = 194. Adam moves 7 x 304 numbers, targets 3 x 194; Gramian and combination 2 x 3 x 304 + 304 more.
    assert ACTION_DIM == 4
    assert least_work(make_agent(3, (2,), "cpu", "mean"), 3, 8).moved == 4 * (7 * 304 + 3 * 194)
    assert least_work(make_agent(3, (2,), "cpu", "aligned"), 3, 8).moved == 4 * (7 * 304 + 3 * 194 + 7 * 304)


def test_the_floor_adds_times():
    assert floor(Work(10, 20, 30, 40), Rates(10, 10, 10, 5)) == 1 + 2 + 3 + 8


def measured(aligned: float) -> Measured:
    return Measured(
        10,
        {"mean": 1.0, "aligned": aligned},
        {"aligned": 6.0},
        {"aligned": 1.5},
        {"mean": 0.5, "aligned": 0.6},
        Rates(1e9, 2e9, 3e9, 4e9),
        {"mean": [("aten::mm", 0.75)]},
        {"mean": 1.25, "aligned": 1.5 * aligned},
    )


def test_targets_are_judged():
    beside_mean, beside_loop = summary([measured(1.2)])
    assert "at most 1.4 times mean: met, 1.20" in beside_mean
    assert "at least 4 times its loop: met, 5.0" in beside_loop
    beside_mean, beside_loop = summary([measured(2.0)])
    assert "**missed**, 2.00" in beside_mean
    assert "**missed**, 3.0" in beside_loop


def test_tables_show_ratios():
    lines = table(measured(1.2))
    assert "| mean | 1000.0 | 1.00 | 1.00 | 1250.0 | 1.25 |  |  |  |  | 500.0 | 50% |" in lines
    assert "| aligned | 1200.0 | 0.83 | 1.20 | 1800.0 | 1.50 | 6000.0 | 5.00 | 1500.0 | 1.25 | 600.0 | 50% |" in lines
    assert "mm 75.0%" in lines[-1]


def test_everything_is_measured():
    one = measure(TASKS, ["mean", "aligned"], ["aligned"], "cpu", 2, 1, BATCH, HIDDEN)
    times = [*one.update.values(), *one.loop.values(), *one.own_passes.values(), *one.floor.values(), *one.rates]
    assert len(times) == 2 + 1 + 1 + 2 + 4
    assert min(times + list(one.by_steps.values())) > 0
    assert all(len(operations) == 10 for operations in one.dearest.values())
    assert torch.tensor([share for _, share in one.dearest["mean"]]).sum() <= 1
