"""Recorded updates are the updates themselves, bit for bit; what cannot be recorded is said, and computed as before."""

import copy

import numpy as np
import pytest
import torch

from mtrl import cuda_graphs, operations, recording
from mtrl.acting import Explorer
from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import names
from mtrl.aggregators.host import on_host
from mtrl.interfaces import Batch, EnvSpec
from mtrl.recording import LARGEST_DEVIATION, Repeated, _deviation
from tests import graphs_on_cpu
from tests.agents.small_agent import batch_for, build, changed, snapshot
from tests.aggregators.test_no_waiting import SOLVED_ON_HOST
from tests.small_runs import train, train_in_parts

CPU = torch.device("cpu")
SPEC = EnvSpec(task_names=("a", "b", "c"), envs_per_task=2, obs_dim=5, action_dim=2, max_episode_steps=9, num_goals=1)
METHODS = [name for name in names() if name != "aligned_ub"]


def refuse(sentence: str) -> None:
    raise AssertionError(sentence)


def state(agent: MTSAC) -> list[torch.Tensor]:
    return [leaf.clone() for leaf in agent.tensors()] + [stream.get_state() for stream in agent.streams()]


def put_back(agent: MTSAC, earlier: list[torch.Tensor]) -> None:
    for leaf, value in zip(agent.tensors(), earlier, strict=False):
        leaf.copy_(value)
    for stream, value in zip(agent.streams(), earlier[len(agent.tensors()) :], strict=True):
        stream.set_state(value)


def repeated(agent: MTSAC, batch: Batch, **options) -> Repeated:
    return of(
        lambda: agent.update(batch), **{"tensors": agent.tensors, "streams": agent.streams, "warn": refuse} | options
    )


def of(function, **options) -> Repeated:
    return Repeated("the update", function, **{"streams": list, "device": CPU, "is_recorded": True} | options)


@pytest.mark.parametrize(
    ("network_name", "method"), [("mlp", "mean"), ("mlp", "aligned"), *(("multi_head", name) for name in names())]
)
def test_recorded_updates_are_the_updates_bit_for_bit(monkeypatch, network_name, method):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 2)
    agent, other = build(network_name, method), build(network_name, method)
    place = Batch(*(leaf.clone() for leaf in batch_for(0)))
    update = repeated(agent, place)
    for step in range(9):  # two as they are, one recorded, one checked, five repeated
        batch = batch_for(step)
        if step in (5, 7):  # one whose critics' losses are no numbers, and one whose gradients alone are too large
            batch.reward[1, 2] = {5: torch.nan, 7: 1e30}[step]
        for leaf, value in zip(place, batch, strict=True):
            leaf.copy_(value)
        found, expected = update(), other.update(batch)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items() if value.isfinite().all())
        assert found["critic_nonfinite"].any() == (step in (5, 7))
    assert changed(snapshot(agent), snapshot(other)) == set()


def test_a_record_is_used(monkeypatch):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 1)
    calls = []
    agent, batch = build(method="aligned"), batch_for(0)
    update = repeated(agent, batch)
    update._function = lambda: calls.append(1) or agent.update(batch)
    for _ in range(9):
        update()
    assert len(calls) == 3  # one as it is, one to record, one to check


@pytest.mark.parametrize("method", METHODS)
def test_graphs_cut_where_the_cpu_is_asked_give_the_same_updates(monkeypatch, method):
    stream = graphs_on_cpu.install(monkeypatch)
    agent, other = build("multi_head", method), build("multi_head", method)
    place = Batch(*(leaf.clone() for leaf in batch_for(0)))
    for step in range(2):
        agent.update(batch_for(step))
        other.update(batch_for(step))
    graphs: list = []
    capture_end = graphs_on_cpu.Graph.capture_end
    monkeypatch.setattr(graphs_on_cpu.Graph, "capture_end", lambda graph: graphs.append(graph) or capture_end(graph))
    for leaf, value in zip(place, batch_for(2), strict=True):
        leaf.copy_(value)
    calls = []

    def update():
        calls.append(state(agent))
        return agent.update(place)

    _, repeat = cuda_graphs.capture(update, agent.streams())
    put_back(agent, calls[1])  # as after the call itself: a GPU computes nothing while it is recorded
    other.update(batch_for(2))
    for step in range(3, 6):
        for leaf, value in zip(place, batch_for(step), strict=True):
            leaf.copy_(value)
        found, expected = repeat(), other.update(batch_for(step))
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert changed(snapshot(agent), snapshot(other)) == set()
    visits = 2 if method in SOLVED_ON_HOST else 0  # critic and actor
    assert len(graphs) == visits + 1
    assert stream.waits == 3 * visits


@pytest.mark.parametrize("fault", ["no step", "critic the other way", "no target", "other moments", "no count"])
def test_what_a_wrong_record_would_do_is_beyond_the_largest_deviation(fault):
    agent = build(hidden_dims=(12, 10))
    agent.update(batch_for(0))
    before = [leaf.clone() for leaf in agent.tensors()]
    agent.update(batch_for(1))
    expected = [leaf.clone() for leaf in agent.tensors()]
    critic, target = agent.critic.parameters.flat, agent.target.flat
    at = {id(leaf): index for index, leaf in enumerate(agent.tensors())}
    if fault == "no step":
        agent.actor.parameters.flat.copy_(before[at[id(agent.actor.parameters.flat)]])
    elif fault == "critic the other way":
        critic.copy_(2 * before[at[id(critic)]] - critic)
    elif fault == "no target":
        target.copy_(before[at[id(target)]])
    elif fault == "other moments":
        agent.critic.adam.state["exp_avg_sq"].mul_(0.5)
    else:
        agent.temperature_adam.state["step"].sub_(1)
    assert _deviation(before, expected, agent.tensors()) > LARGEST_DEVIATION
    assert _deviation(before, expected, expected) == 0.0


def test_a_deviation_by_hand():
    before, expected = [torch.zeros(2), torch.tensor([5])], [torch.tensor([3.0, 4.0]), torch.tensor([6])]
    # 0.5 beside a change of 5. Whole numbers are equal or not.
    assert _deviation(before, expected, [torch.tensor([3.5, 4.0]), torch.tensor([6])]) == pytest.approx(0.1)
    assert _deviation(before, expected, [*expected[:1], torch.tensor([5])]) == float("inf")
    nan = [torch.tensor([torch.nan, 1.0])]
    assert _deviation([torch.zeros(2)], nan, [leaf.clone() for leaf in nan]) == 0.0


def test_a_number_that_changes_outside_is_noticed(monkeypatch):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 1)
    total, count, sentences = torch.zeros(()), [0], []

    def add() -> torch.Tensor:
        count[0] += 1
        return total.add_(count[0]).clone()

    adding = of(add, tensors=lambda: [total], warn=sentences.append)
    assert [float(adding()) for _ in range(5)] == [1, 3, 6, 10, 15]
    assert len(sentences) == 1
    assert "comes out otherwise when it is repeated, by 0.3 of its change" in sentences[0]
    assert "--compile off" in sentences[0]


def test_other_random_numbers_are_noticed(monkeypatch):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 1)
    stream = torch.Generator().manual_seed(0)
    total, sentences = torch.zeros(()), []

    def draw() -> torch.Tensor:
        if operations.proxy_tensor.get_proxy_mode() is None:
            return total.add_(torch.rand((), generator=stream))
        return total.add_(torch.rand(2, generator=stream)[0])  # what is written down draws twice as many

    drawing = of(draw, tensors=lambda: [total], streams=lambda: [stream], warn=sentences.append)
    for _ in range(3):
        drawing()
    assert len(sentences) == 1
    assert "other random numbers" in sentences[0]


def test_what_looks_at_values_is_not_recorded_and_nothing_is_lost(monkeypatch):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 1)
    stream, total, sentences = torch.Generator().manual_seed(0), torch.zeros(()), []

    def walk() -> torch.Tensor:
        total.add_(torch.rand((), generator=stream))
        return total.mul_(2) if total > 1 else total.clone()

    walking = of(walk, tensors=lambda: [total], streams=lambda: [stream], warn=sentences.append)
    found = [float(walking()) for _ in range(6)]
    stream.manual_seed(0)
    total.zero_()
    assert found == [float(walk()) for _ in range(6)]
    assert len(sentences) == 1
    assert sentences[0].startswith("the update cannot be recorded: ")


def test_a_number_that_changes_late_is_noticed(monkeypatch):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 1)
    monkeypatch.setattr(recording, "CHECK_EVERY", 4)
    total, calls, sentences = torch.zeros(()), [0], []

    def add() -> torch.Tensor:
        calls[0] += 1
        return total.add_(1 if calls[0] < 4 else 10).clone()

    adding = of(add, tensors=lambda: [total], warn=sentences.append)
    for _ in range(10):
        adding()
    # one as it is, one recorded, one checked, three repeated, and one checked: wrong. It and three more are right.
    assert float(total) == 3 + 3 + 40
    assert len(sentences) == 1


def test_looking_at_a_number_made_before_is_not_recorded(monkeypatch):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 1)
    count, sentences = torch.zeros((), dtype=torch.int64), []

    def number() -> torch.Tensor:
        count.add_(1)
        return torch.ones(()) * (1 if count.item() < 6 else 2)

    counting = of(number, tensors=lambda: [count], warn=sentences.append)
    assert [float(counting()) for _ in range(8)] == [1, 1, 1, 1, 1, 2, 2, 2]
    assert "cannot be recorded" in sentences[0]
    assert "looks at the value of a tensor" in sentences[0]


def test_a_capture_that_fails_says_why_and_the_update_goes_on(monkeypatch):
    graphs_on_cpu.install(monkeypatch)
    total = torch.zeros(())

    def walk() -> torch.Tensor:
        total.add_(1)
        return total * 2 if total.item() > 0 else total.clone()

    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        cuda_graphs.capture(walk, [])


def test_a_failure_between_two_graphs_ends_no_graph_that_has_not_begun(monkeypatch):
    calls = []

    @on_host
    def solve(gramian: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:  # before the capture harmless numbers and the real ones were solved
            raise ValueError("no solution")
        return gramian.double()

    graphs_on_cpu.install(monkeypatch)
    began, ended = [], []
    for name, seen in (("capture_begin", began), ("capture_end", ended)):
        original = getattr(graphs_on_cpu.Graph, name)
        monkeypatch.setattr(graphs_on_cpu.Graph, name, lambda *a, o=original, s=seen, **k: s.append(1) or o(*a, **k))
    with pytest.raises(ValueError, match="no solution"):
        cuda_graphs.capture(lambda: solve(torch.eye(2)), [])
    assert len(calls) == 3
    assert len(began) == len(ended) == 1


def test_a_result_that_comes_out_otherwise_is_noticed(monkeypatch):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 1)
    count, sentences = [0], []

    def number() -> dict[str, torch.Tensor]:
        count[0] += 1
        return {"number": torch.ones(2) * count[0]}

    counting = of(number, tensors=list, warn=sentences.append)
    assert [float(counting()["number"][0]) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert "comes out otherwise when it is repeated, by 0.3 of its change" in sentences[0]


def test_recorded_actions_are_the_actions(monkeypatch):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 1)
    agent, other = build(), build()
    explore = Explorer(agent, SPEC, CPU, is_recorded=True, warn=refuse)
    for step in range(6):  # one as it is, one recorded, one checked, three repeated; learning in between
        obs = batch_for(step).obs[:, :2].numpy()
        assert np.array_equal(explore(obs), other.act(torch.from_numpy(obs)).numpy())
        agent.update(batch_for(step))
        other.update(batch_for(step))


@pytest.mark.timeout(300)  # three runs that are recorded
@pytest.mark.parametrize("method", ["aligned", "nash"])
def test_a_run_that_repeats_records_is_the_run_that_does_not(monkeypatch, capsys, tmp_path, method):
    monkeypatch.setitem(recording.RUNS_BEFORE, "cpu", 3)
    made = []
    trace = operations.trace
    monkeypatch.setattr(recording, "trace", lambda *args: made.append(1) or trace(*args))
    found = train(tmp_path / "auto", aggregator=method)
    resumed = train_in_parts(tmp_path / "parts", [200], aggregator=method)
    assert len(made) == 6  # updates and actions
    expected = train(tmp_path / "off", aggregator=method, compile="off")
    assert len(made) == 6
    said = capsys.readouterr()
    assert "warning" not in said.out + said.err
    for trainer in (found, resumed):
        assert trainer.learner.update_count == expected.learner.update_count > 20
        assert all(torch.equal(a, b) for a, b in zip(trainer.agent.tensors(), expected.agent.tensors(), strict=True))


def test_agents_with_records_can_be_copied():
    agent = build(method="aligned")
    agent.update(batch_for(0))
    operations.trace(lambda: agent.update(batch_for(1)), agent.streams())
    assert changed(snapshot(copy.deepcopy(agent)), snapshot(agent)) == set()
