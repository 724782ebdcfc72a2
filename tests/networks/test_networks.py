"""What every registered architecture keeps, and what sets each apart."""

import pytest
import torch
from torch import nn
from torch.func import vmap

from mtrl.networks import REGISTRY
from mtrl.networks.ensemble import Ensemble
from mtrl.networks.mlp import MLP
from mtrl.registry import resolve

NUM_TASKS, INPUT_DIM, OUTPUT_DIM, BATCH = 3, 5, 2, 4
every_network = pytest.mark.parametrize("name", list(REGISTRY))


def build(name: str, hidden_dims: tuple[int, ...] = (8, 6), output_bound: float = 0.5):
    network = resolve(REGISTRY, "network", name)
    return network(
        network.Config(hidden_dims=hidden_dims),
        input_dim=INPUT_DIM,
        output_dim=OUTPUT_DIM,
        num_tasks=NUM_TASKS,
        output_bound=output_bound,
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task_slice(private, task):
    return {name: leaf[task] for name, leaf in private.items()}


def inputs_for(seed: int = 7) -> torch.Tensor:
    return torch.randn(BATCH, INPUT_DIM, generator=seeded(seed))


def task_column(task: int) -> torch.Tensor:
    return torch.full((BATCH,), task)


def tensors(parameters):
    shared, private = parameters
    return {f"shared.{k}": v for k, v in shared.items()} | {f"private.{k}": v for k, v in private.items()}


@every_network
def test_init_depends_on_the_generator_alone(name):
    before = torch.get_rng_state()
    first, again, other = (tensors(build(name).init(seeded(seed))) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_network
def test_private_parameters_carry_the_task_on_axis_0(name):
    _, private = build(name).init(seeded())
    assert all(leaf.shape[0] == NUM_TASKS for leaf in private.values())


@every_network
@pytest.mark.parametrize("bound", [1e-3, 3e-3])
def test_output_layers_start_within_the_bound_and_hidden_ones_he_uniform(name, bound):
    network = build(name, hidden_dims=(64, 64), output_bound=bound)
    drawn = tensors(network.init(seeded()))
    outputs = {key: leaf for key, leaf in drawn.items() if "output." in key}
    assert outputs
    assert all(0 < leaf.abs().max() <= bound for leaf in outputs.values())
    assert all(leaf.abs().max() > 0.9 * bound for key, leaf in outputs.items() if key.endswith("weight"))
    weight = drawn["shared.hidden.1.weight"]
    assert 0.99 * (6 / 64) ** 0.5 < weight.abs().max() <= (6 / 64) ** 0.5


@every_network
def test_shape_of_the_output(name):
    network = build(name)
    shared, private = network.init(seeded())
    found = network(shared, task_slice(private, 0), inputs_for(), task_column(0))
    assert found.shape == (BATCH, OUTPUT_DIM)
    assert found.dtype == torch.float32


@every_network
def test_vmap_over_tasks_equals_a_loop(name):
    network = build(name)
    shared, private = network.init(seeded())
    inputs = torch.randn(NUM_TASKS, BATCH, INPUT_DIM, generator=seeded(1))
    task = torch.arange(NUM_TASKS)[:, None].expand(NUM_TASKS, BATCH)
    found = vmap(network, in_dims=(None, 0, 0, 0))(shared, private, inputs, task)
    loop = [network(shared, task_slice(private, i), inputs[i], task[i]) for i in range(NUM_TASKS)]
    assert torch.allclose(found, torch.stack(loop), atol=1e-6)


@every_network
def test_output_depends_on_the_task(name):
    network = build(name)
    shared, private = network.init(seeded())
    found = [network(shared, task_slice(private, i), inputs_for(), task_column(i)) for i in range(NUM_TASKS)]
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[1], found[2])


@every_network
@pytest.mark.parametrize("hidden_dims", [(), (0,), (8, -1)])
def test_impossible_widths_are_refused(name, hidden_dims):
    with pytest.raises(ValueError, match="hidden_dims"):
        resolve(REGISTRY, "network", name).Config(hidden_dims=hidden_dims)


# ------------------------------------------------------------------------------------------------------------ mlp


@pytest.mark.parametrize("task", range(NUM_TASKS))
def test_mlp_equals_a_plain_network_on_the_one_hot_task(task):
    network = build("mlp")
    shared, private = network.init(seeded())
    assert private == {}
    linear = [nn.Linear(INPUT_DIM + NUM_TASKS, 8), nn.Linear(8, 6), nn.Linear(6, 2)]
    plain = nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2])
    for layer, leaf in zip(linear, ("hidden.0", "hidden.1", "output"), strict=True):
        layer.load_state_dict({part: shared[f"{leaf}.{part}"] for part in ("weight", "bias")})
    one_hot = torch.zeros(BATCH, NUM_TASKS)
    one_hot[:, task] = 1
    expected = plain(torch.cat([inputs_for(), one_hot], dim=1)).detach()
    assert torch.allclose(network(shared, {}, inputs_for(), task_column(task)), expected, atol=1e-6)


def test_mlp_reads_the_task_of_each_row():
    network = build("mlp")
    shared, _ = network.init(seeded())
    mixed = network(shared, {}, inputs_for(), torch.tensor([2, 0, 1, 0]))
    for row, task in enumerate([2, 0, 1, 0]):
        alone = network(shared, {}, inputs_for(), task_column(task))[row]
        assert torch.allclose(mixed[row], alone, atol=1e-6)


# ----------------------------------------------------------------------------------------------------- multi_head


def test_multi_head_is_the_head_on_the_encoded_inputs():
    network = build("multi_head")
    shared, private = network.init(seeded())
    features = network.encode(shared, inputs_for())
    assert features.shape == (BATCH, 6)
    for task in range(NUM_TASKS):
        head = task_slice(private, task)
        expected = features @ head["output.weight"].T + head["output.bias"]
        assert torch.allclose(network(shared, head, inputs_for(), task_column(task)), expected, atol=1e-6)
        assert torch.allclose(network.head(head, features), expected, atol=1e-6)


def test_multi_head_trunk_does_not_know_the_task():
    network = build("multi_head")
    shared, private = network.init(seeded())
    head = task_slice(private, 0)
    found = [network(shared, head, inputs_for(), task_column(task)) for task in range(NUM_TASKS)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_multi_head_changing_one_head_changes_one_task():
    network = build("multi_head")
    shared, private = network.init(seeded())

    def outputs():
        return [network(shared, task_slice(private, i), inputs_for(), task_column(i)) for i in range(NUM_TASKS)]

    before = outputs()
    private["output.weight"][1] += 1
    after = outputs()
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_multi_head_heads_are_drawn_independently():
    _, private = build("multi_head", hidden_dims=(8, 500)).init(seeded())
    heads = private["output.weight"].flatten(1)
    # Three pairs of 1000 uniform numbers: correlations have standard deviation 0.03.
    correlations = torch.corrcoef(heads)[torch.triu_indices(3, 3, 1).unbind()]
    assert correlations.abs().max() < 0.15


def test_multi_head_output_bound_counts_the_features_not_the_tasks():
    _, private = build("multi_head").init(seeded())
    assert private["output.weight"].shape == (NUM_TASKS, OUTPUT_DIM, 6)
    assert private["output.bias"].shape == (NUM_TASKS, OUTPUT_DIM)


# ------------------------------------------------------------------------------------------------------- ensemble


def member(parameters, index):
    return {name.split(".", 1)[1]: leaf for name, leaf in parameters.items() if name.split(".", 1)[0] == str(index)}


@every_network
@pytest.mark.parametrize("size", [1, 2, 11])
def test_ensemble_equals_its_members(name, size):
    network = resolve(REGISTRY, "network", name)
    single = network(
        network.Config(hidden_dims=(6,)), input_dim=INPUT_DIM, output_dim=1, num_tasks=NUM_TASKS, output_bound=0.5
    )
    ensemble = Ensemble(single, size)
    shared, private = ensemble.init(seeded())
    task_private = task_slice(private, 1)
    found = ensemble(shared, task_private, inputs_for(), task_column(1))
    assert found.shape == (BATCH, size)
    for index in range(size):
        expected = single(member(shared, index), member(task_private, index), inputs_for(), task_column(1))
        assert torch.equal(found[:, index], expected[:, 0])


@every_network
def test_ensemble_members_are_drawn_one_after_the_other_from_one_stream(name):
    network = build(name)
    shared, private = Ensemble(network, 2).init(seeded())
    generator = seeded()
    for index in range(2):
        expected_shared, expected_private = network.init(generator)
        assert all(torch.equal(member(shared, index)[key], leaf) for key, leaf in expected_shared.items())
        assert all(torch.equal(member(private, index)[key], leaf) for key, leaf in expected_private.items())
    assert not torch.equal(shared["0.hidden.0.weight"], shared["1.hidden.0.weight"])


def test_an_mlp_that_is_not_told_the_task_has_no_place_for_it():
    sizes = {"input_dim": 3, "output_dim": 2, "num_tasks": 4, "output_bound": 1.0}
    blind = MLP(MLP.Config(hidden_dims=(5,), task_input="none"), **sizes)
    shared, private = blind.init(torch.Generator().manual_seed(0))
    assert shared["hidden.0.weight"].shape == (5, 3)
    inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    hidden = (inputs @ shared["hidden.0.weight"].T + shared["hidden.0.bias"]).relu()
    expected = hidden @ shared["output.weight"].T + shared["output.bias"]
    for task in range(4):
        assert torch.allclose(blind(shared, private, inputs, torch.full((6,), task)), expected, atol=1e-6)
