"""What only a CUDA device can show: run with `pytest -m gpu`."""

import contextlib
import functools

import numpy as np
import pytest
import torch

from mtrl.acting import Explorer
from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import make, names
from mtrl.aggregators.base import Aggregator, Need, apply
from mtrl.aggregators.system import GradientSystem, gramian
from mtrl.cuda_graphs import waiting
from mtrl.interfaces import Batch, EnvSpec, Step
from mtrl.networks.multi_head import MultiHead
from mtrl.recording import RUNS_BEFORE, Repeated
from mtrl.replay import Replay
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK
from tests.aggregators.test_no_waiting import SOLVED_ON_HOST
from tests.aggregators.traits import draws_random_numbers

pytestmark = pytest.mark.gpu

SPEC = EnvSpec(task_names=("a", "b", "c"), envs_per_task=2, obs_dim=5, action_dim=2, max_episode_steps=9, num_goals=1)


def build(device, method="aligned"):
    return MTSAC(
        MTSAC.Config(),
        spec=SPEC,
        make_network=functools.partial(MultiHead, MultiHead.Config(hidden_dims=(32, 32))),
        critic_aggregator=make(method),
        actor_aggregator=make(method),
        device=torch.device(device),
        seed=0,
    )


def batch_on(device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    obs, next_obs = (torch.randn(3, 16, 5, generator=generator) for _ in range(2))
    action = torch.randn(3, 16, 2, generator=generator).tanh()
    reward = torch.randn(3, 16, generator=generator)
    task = torch.arange(3)[:, None].expand(3, 16)
    return Batch(*(leaf.to(device) for leaf in (obs, action, reward, next_obs, torch.zeros(3, 16), task)))


WITHOUT_THE_CPU = [name for name in names() if name not in SOLVED_ON_HOST]


def directions(method: str, jacobian: torch.Tensor, num_updates: int = 3) -> torch.Tensor:
    """Return the directions of some updates, (update, param); only what is solved on the CPU may wait."""
    device = jacobian.device
    aggregator = make(method)
    aggregator.setup(len(jacobian), [jacobian.shape[1:]], device)
    generator = torch.Generator(device).manual_seed(0)
    all_losses = torch.linspace(1, 2, num_updates * len(jacobian), dtype=torch.float64).to(device)
    with waiting("error") if device.type == "cuda" and method in WITHOUT_THE_CPU else contextlib.nullcontext():
        found = [update(aggregator, jacobian, losses, generator) for losses in all_losses.chunk(num_updates)]
        return torch.stack(found)


def update(
    aggregator: Aggregator, jacobian: torch.Tensor, losses: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Do what a call of the aggregator does, without its look at whether all is finite, which waits."""
    rows = (jacobian,)
    products = gramian(rows) if aggregator.need.has_gramian else None
    system = GradientSystem(
        len(jacobian), losses, products, rows if aggregator.need == Need.ROWS else None, generator=generator
    )
    (direction,) = apply(aggregator.aggregate(system), rows)
    return direction


def test_waiting_is_noticed():
    with waiting("error"), pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(2, device="cuda").sum().item()


@pytest.mark.parametrize("method", names())
@pytest.mark.parametrize("case", FULL_RANK | DEGENERATE)
def test_all_methods_give_the_directions_of_the_cpu(method, case):
    jacobian = (FULL_RANK | DEGENERATE)[case]
    expected, found = directions(method, jacobian), directions(method, jacobian.cuda()).cpu()
    assert found.isfinite().all()
    if case in FULL_RANK and not draws_random_numbers(method):  # which it does on the device
        assert (found - expected).norm() <= 1e-7 * expected.norm()


@pytest.mark.parametrize("method", WITHOUT_THE_CPU)
def test_an_update_does_not_wait(method):
    agent = build("cuda", method)
    batches = [batch_on("cuda", seed) for seed in range(2)]
    agent.update(batches[0])
    with waiting("error"):
        agent.update(batches[1])


@pytest.mark.parametrize("method", names())
def test_recorded_updates_are_the_updates(method):
    agent, other = build("cuda", method), build("cuda", method)
    place = Batch(*(leaf.clone() for leaf in batch_on("cuda")))
    update = Repeated(
        "the update",
        lambda: agent.update(place),
        tensors=agent.tensors,
        streams=agent.streams,
        device=torch.device("cuda"),
        is_recorded=True,
        warn=pytest.fail,
    )
    for step in range(RUNS_BEFORE["cuda"] + 20):
        for leaf, value in zip(place, batch_on("cuda", step), strict=True):
            leaf.copy_(value)
        found, expected = update(), other.update(batch_on("cuda", step))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    assert update._record is not None
    for ours, theirs in zip(agent.tensors(), other.tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_recorded_actions_are_the_actions():
    agent, other = build("cuda"), build("cuda")
    explore = Explorer(agent, SPEC, torch.device("cuda"), is_recorded=True, warn=pytest.fail)
    for step in range(RUNS_BEFORE["cuda"] + 5):
        obs = batch_on("cpu", step).obs[:, :2].numpy()
        expected = other.act(torch.from_numpy(obs).cuda()).cpu().numpy()
        np.testing.assert_allclose(explore(obs), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", names())
def test_the_first_critic_gradients_are_those_of_the_cpu(method):
    # The noise of the targets differs between devices; with terminated steps the targets are the rewards.
    found = []
    for device in ("cpu", "cuda"):
        agent = build(device, method)
        batch = batch_on(device)
        metrics = agent.update(batch._replace(terminated=torch.ones_like(batch.terminated)))
        found.append((metrics["critic_loss"].cpu(), [leaf.cpu() for leaf in agent.critic.leaves]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    if not draws_random_numbers(method):  # which it does on the device
        for ours, theirs in zip(found[0][1], found[1][1], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", names())
def test_a_batch_that_is_not_finite_changes_no_parameter(method):
    agent = build("cuda", method)
    agent.update(batch_on("cuda"))
    before = [leaf.clone() for leaf in (*agent.critic.leaves, *agent.actor.leaves, agent.log_alpha)]
    batch = batch_on("cuda", seed=1)
    batch.reward[1, 3] = torch.nan
    metrics = agent.update(batch)
    assert metrics["critic_nonfinite"].tolist() == [False, True, False]
    after = (*agent.critic.leaves, *agent.actor.leaves, agent.log_alpha)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_state_moves_between_devices():
    for source, target in (("cpu", "cuda"), ("cuda", "cpu")):
        agent, other = build(source), build(target)
        agent.update(batch_on(source))
        other.load_state_dict(agent.state_dict())
        for ours, theirs in zip(agent.critic.leaves, other.critic.leaves, strict=True):
            assert torch.equal(ours.cpu(), theirs.cpu())
        other.update(batch_on(target))


def test_replay_on_the_device_returns_what_was_stored():
    replay = Replay(SPEC, 4, torch.device("cuda"), seed=0)
    shape = (3, 2)
    reward = np.arange(6, dtype=np.float32).reshape(shape)
    obs = np.repeat(reward[..., None], 5, axis=-1)
    flags = np.zeros(shape, dtype=bool)
    step = Step(
        obs, obs + 1, reward, flags, flags, flags, np.zeros(shape, dtype=np.int64), ~flags, np.zeros((*shape, 0))
    )
    replay.add(obs, np.zeros((*shape, 2), dtype=np.float32), step)
    batch = replay.sample(50)
    assert batch.reward.device.type == "cuda"
    assert [sorted(set(row)) for row in batch.reward.tolist()] == [[0, 1], [2, 3], [4, 5]]
    assert torch.equal(batch.next_obs[..., 0], batch.reward + 1)
