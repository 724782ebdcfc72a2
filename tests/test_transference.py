"""The lookahead matrix against its definition, and against steps that are really taken."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from mtrl.agents.component import Component
from mtrl.agents.flat import flatten
from mtrl.checkpoint import latest
from mtrl.gradients import losses_at, task_gradients
from mtrl.signals import StopRequest
from mtrl.transference import Average, transference
from tests.agents.small_agent import NUM_TASKS, batch_for, build, changed, every_network, snapshot
from tests.aggregators.jacobians import gaussian
from tests.aggregators.vectors import DATA, read
from tests.small_runs import assert_same_state, records, train
from tests.small_runs import build as build_trainer

QUADRATICS = read(DATA / "transference_quadratic.json")["vectors"]


def quadratic(shared, private, frozen):
    """L = (theta - a)^T H (theta - a) / 2 + c."""
    del private
    a, H, c = frozen
    distance = shared["theta"] - a
    return distance @ H @ distance / 2 + c, {}


@pytest.mark.parametrize("vector", QUADRATICS, ids=lambda vector: vector["name"])
def test_matrix_equals_the_published_definition(vector):
    a, H, c, theta = (torch.tensor(vector["problem"][name], dtype=torch.float64) for name in ("a", "H", "c", "theta"))
    shared = {"theta": theta}
    rows = task_gradients(quadratic, shared, {}, (a, H, c)).shared["theta"]
    found = transference(quadratic, shared, {}, (a, H, c), {"theta": vector["hyperparameters"]["lr"] * rows})
    expected = torch.tensor(vector["Z_pairwise"], dtype=torch.float64)
    # Ours has 1e-8 more in the denominator, beside losses of at least 0.5.
    assert (found - expected).norm() <= 1e-7 * expected.norm()


def linear(shared, private, frozen):
    """Task j's loss is its slope times x plus its offset."""
    del private
    slope, offset = frozen
    return slope * shared["x"] + offset, {}


def test_matrix_by_hand_with_a_negative_loss():
    # L1 = x + 1 and L2 = -2 x - 1 at x = 1: 2 and -3. A step of 0.1 along the first slope leads to x = 0.9: L1 = 1.9,
    # a fall of 0.1 / 2; L2 = -2.8, a rise of 0.2 / 3. One along the second, -2, leads to 1.2: L1 = 2.2, a rise of
    # 0.2 / 2; L2 = -3.4, a fall of 0.4 / 3, positive although the loss is negative.
    slopes, offsets = torch.tensor([1.0, -2.0]).double(), torch.tensor([1.0, -1.0]).double()
    shared = {"x": torch.tensor(1.0).double()}
    found = transference(linear, shared, {}, (slopes, offsets), {"x": 0.1 * slopes})
    assert torch.allclose(found, torch.tensor([[0.05, -0.2 / 3], [-0.1, 0.4 / 3]]).double(), atol=1e-8)


def test_tasks_that_share_no_parameter_have_exactly_none():
    def own_half(shared, private, frozen):
        del private
        mask, target = frozen
        return ((shared["w"] - target) * mask).square().mean(), {}

    mask = torch.zeros(3, 6)
    for task in range(3):
        mask[task, 2 * task : 2 * task + 2] = 1
    shared = {"w": torch.randn(6, generator=torch.Generator().manual_seed(0))}
    frozen = (mask, torch.ones(3, 6))
    moves = {name: 0.01 * leaf for name, leaf in task_gradients(own_half, shared, {}, frozen).shared.items()}
    found = transference(own_half, shared, {}, frozen, moves)
    assert torch.equal(found, found.diagonal().diag())
    assert (found.diagonal() > 0).all()


@pytest.mark.parametrize("num_tasks", [1, 9, 10, 20, 50])
def test_steps_that_lead_nowhere_have_exactly_none(num_tasks):
    # Ten candidates are evaluated at once; what is left over must round as they do.
    agent = build(num_tasks=num_tasks, hidden_dims=(64, 64))
    inputs = agent._critic_inputs(batch_for(0, num_tasks), torch.Generator().manual_seed(0))
    moves = {name: torch.zeros(num_tasks, *leaf.shape) for name, leaf in agent.critic.shared.items()}
    found = transference(agent._critic_loss, agent.critic.shared, agent.critic.private, inputs, moves)
    assert torch.equal(found, torch.zeros(num_tasks, num_tasks))


@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(num_tasks=st.integers(1, 6), seed=st.integers(0, 999), factor=st.floats(1e-3, 1e3))
def test_scale_of_a_target_does_not_matter_where_the_steps_stay(num_tasks, seed, factor):
    factors = torch.stack([gaussian(4, 4, seed + 100 * task) for task in range(num_tasks)])
    a, H, c = gaussian(num_tasks, 4, seed), factors @ factors.mT, torch.full((num_tasks,), 2.0).double()
    moves = {"theta": 0.1 * gaussian(num_tasks, 4, seed + 1)}
    shared = {"theta": gaussian(1, 4, seed + 2)[0]}
    scale = torch.ones(num_tasks).double()
    scale[0] = factor
    plain = transference(quadratic, shared, {}, (a, H, c), moves)
    scaled = transference(quadratic, shared, {}, (a, scale[:, None, None] * H, scale * c), moves)
    # 1e-8 in the denominator shows beside a loss of 2e-3.
    assert torch.allclose(plain, scaled, rtol=1e-4, atol=1e-12)


def test_short_steps_give_what_the_gramian_says():
    agent = build(seed=1)
    batch = batch_for(0)
    inputs = agent._critic_inputs(batch, torch.Generator().manual_seed(0))
    rows = task_gradients(agent._critic_loss, agent.critic.shared, {}, inputs)
    jacobian = torch.cat([leaf.double().flatten(1) for leaf in rows.shared.values()], dim=1)
    moves = {name: 1e-3 * leaf for name, leaf in rows.shared.items()}
    found = transference(agent._critic_loss, agent.critic.shared, agent.critic.private, inputs, moves).double()
    expected = 1e-3 * jacobian @ jacobian.T / rows.losses
    assert (found - expected).norm() <= 0.02 * expected.norm()


def critic_inputs(agent, batch):
    """Return the frozen inputs that `agent.transference` will use, without moving a random stream."""
    generator = torch.Generator()
    generator.set_state(agent.generators["update"].get_state())
    return agent._critic_inputs(batch, generator)


def losses_after_a_real_step(component: Component, loss, frozen, source: int) -> Tensor:
    """Step a copy of the component on one task's gradient alone, put its private parameters back, evaluate."""
    stepped = copy.deepcopy(component)
    gradients = task_gradients(loss, stepped.shared, stepped.private, frozen)
    private = [torch.zeros_like(leaf) for leaf in stepped.private.values()]
    for own, leaf in zip(private, gradients.private.values(), strict=True):
        own[source] = leaf[source]
    together = [leaf[source].contiguous() for leaf in gradients.shared.values()]
    norm = torch.nn.utils.get_total_norm(together)
    clip = (stepped.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
    stepped.adam.step(flatten([*(clip * leaf for leaf in together), *private]), torch.tensor(True))
    return losses_at(loss, stepped.shared, component.private, frozen)


@every_network
@pytest.mark.parametrize("num_updates", [0, 3])
@pytest.mark.parametrize("max_grad_norm", [1e-2, 1e3])
def test_optimizer_displacement_is_the_step_that_the_optimizer_takes(network_name, num_updates, max_grad_norm):
    agent = build(network_name, critic_lr=0.01, max_grad_norm=max_grad_norm)
    for seed in range(num_updates):
        agent.update(batch_for(seed))
    batch = batch_for(9)
    inputs = critic_inputs(agent, batch)
    before = losses_at(agent._critic_loss, agent.critic.shared, agent.critic.private, inputs)
    found = agent.transference(batch)["critic_transference"]
    for source in range(NUM_TASKS):
        after = losses_after_a_real_step(agent.critic, agent._critic_loss, inputs, source)
        expected = (before - after) / before.abs()
        assert (found[source] - expected).abs().max() <= 2e-6  # float32 losses, relative to themselves
        assert expected.abs().max() > 1e-4


def test_gradient_displacement_is_the_gradient_times_the_step_size():
    agent = build(critic_lr=0.01, actor_lr=0.02, transference_step="gradient")
    agent.update(batch_for(0))
    batch = batch_for(9)
    inputs = critic_inputs(agent, batch)
    rows = task_gradients(agent._critic_loss, agent.critic.shared, {}, inputs)
    found = agent.transference(batch)["critic_transference"]
    for source in range(NUM_TASKS):
        moved = {name: leaf - 0.01 * rows.shared[name][source] for name, leaf in agent.critic.shared.items()}
        expected = (rows.losses - losses_at(agent._critic_loss, moved, {}, inputs)) / rows.losses.abs()
        assert (found[source] - expected).abs().max() <= 2e-6


@every_network
@pytest.mark.parametrize("step", ["optimizer", "gradient"])
def test_measuring_changes_nothing(network_name, step):
    agent = build(network_name, transference_step=step)
    agent.update(batch_for(0))
    before = snapshot(agent)
    found = agent.transference(batch_for(1))
    assert changed(before, snapshot(agent)) == set()
    assert set(found) == {"critic_transference", "actor_transference"}
    for matrix in found.values():
        assert matrix.shape == (NUM_TASKS, NUM_TASKS)
        assert matrix.isfinite().all()


def test_a_short_gradient_step_helps_its_own_task():
    # An optimiser's step also carries what went before, and need not.
    agent = build(critic_lr=0.01, actor_lr=0.1, transference_step="gradient")
    found = agent.transference(batch_for(1))
    assert all((matrix.diagonal() > 0).all() for matrix in found.values())


# ------------------------------------------------------------------------------------------------------ in the trainer


def test_average_leaves_out_what_is_not_finite():
    average = Average()
    average.add({"z": torch.tensor([[1.0, torch.nan], [torch.inf, 4.0]])})
    average.add({"z": torch.tensor([[3.0, torch.nan], [5.0, 6.0]])})
    expected = torch.tensor([[2.0, torch.nan], [5.0, 5.0]])
    assert torch.equal(average.pop()["z"].nan_to_num(-1), expected.nan_to_num(-1))
    assert average.pop() == {}


def test_average_continues_in_a_fresh_object():
    first, second = Average(), Average()
    first.add({"z": torch.ones(2, 2)})
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    second.add({"z": torch.full((2, 2), 3.0)})
    assert torch.equal(second.pop()["z"], torch.full((2, 2), 2.0))


def test_records_hold_the_mean_of_the_measurements_since_the_last(tmp_path):
    trainer = build_trainer(tmp_path / "run", transference_every=5)
    measured = []
    measure = trainer.agent.transference

    def remember(batch):
        measured.append((trainer.learner.update_count, measure(batch)))
        return measured[-1][1]

    trainer.agent.transference = remember
    trainer.run(StopRequest())
    trainer.close()
    # 76 updates in all; a record after every 25 vector steps, the first with the one update that ends the warm-up.
    assert [count for count, _ in measured] == list(range(5, 76, 5))
    found = records(tmp_path / "run", "train")
    assert ["critic_transference" in record for record in found] == [False, True, True, True]
    for record, updates in zip(found[1:], ((1, 26), (26, 51), (51, 76)), strict=True):
        for name in ("critic_transference", "actor_transference"):
            mean = torch.stack([m[name] for count, m in measured if updates[0] < count <= updates[1]]).mean(0)
            assert torch.allclose(torch.tensor(record[name]), mean, rtol=1e-4, atol=1e-9)


def test_matrix_is_an_image_in_tensorboard(tmp_path):
    train(tmp_path / "run", transference_every=5)
    board = EventAccumulator(str(tmp_path / "run"))
    board.Reload()
    images = board.Images("critic_transference")
    assert [image.step for image in images] == [200, 300, 400]
    assert images[0].width == images[0].height == 256


def test_measuring_often_or_never_changes_nothing_learned(tmp_path):
    never = train(tmp_path / "never", aggregator="pcgrad", transference_every=0)
    often = train(tmp_path / "often", aggregator="pcgrad", transference_every=4)
    assert_same_state(never.agent.state_dict(), often.agent.state_dict())
    assert not any("critic_transference" in record for record in records(tmp_path / "never", "train"))


def test_measurements_since_the_last_record_survive_a_checkpoint(tmp_path):
    options: dict[str, Any] = {"transference_every": 3, "log_every": 400, "eval_every": 0}
    train(tmp_path / "whole", **options)
    first = build_trainer(tmp_path / "parts", **options)
    stop = StopRequest()
    step = first._advance

    def stop_on_the_way():
        step()
        if first.step_count == 260:
            stop._receive(15, None)

    first._advance = stop_on_the_way
    first.run(stop)
    first.close()
    checkpoint = latest(tmp_path / "parts" / "checkpoints")
    second = build_trainer(tmp_path / "parts", resume_from=checkpoint, **options)
    second.run(StopRequest())
    second.close()
    whole, parts = (records(tmp_path / name, "train")[-1] for name in ("whole", "parts"))
    assert whole["critic_transference"] == parts["critic_transference"]
