"""Aligned-MTL-UB: the official code's results, the engine's path through a probe, and where it degenerates."""

import pytest
import torch
from torch import Tensor

import mtrl
from mtrl import assembly, cli
from mtrl.aggregators import make
from mtrl.aggregators.aligned import balance_matrix
from mtrl.aggregators.base import Aggregator
from mtrl.gradients import aggregate, representation_gramian
from mtrl.interfaces import EncoderNetwork, EnvSpec
from mtrl.networks.ensemble import Ensemble
from mtrl.networks.mlp import MLP
from mtrl.networks.multi_head import MultiHead
from mtrl.timing import Stopwatch
from tests.agents.small_agent import NUM_TASKS, batch_for, build, parameters
from tests.aggregators.jacobians import FULL_RANK, gaussian
from tests.aggregators.vectors import DATA, assert_close, read

VECTORS = read(DATA / "aligned_mtl_ub.json")["vectors"]
vectors = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])


class Supervised:
    """An encoder tanh(X W^T + b) and one linear decoder per task, all tasks on the same inputs."""

    def __init__(self, model) -> None:
        def double(name: str) -> Tensor:
            return torch.tensor(model[name], dtype=torch.float64)

        self.encoder = [double("W").requires_grad_(), double("b").requires_grad_()]
        self.decoders = [
            [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
            for weight, bias in zip(double("decoders_W"), double("decoders_b"), strict=True)
        ]
        self.private = [leaf for decoder in self.decoders for leaf in decoder]
        self.before_tanh = double("X") @ self.encoder[0].T + self.encoder[1]
        self.hidden = self.before_tanh.tanh()
        self.losses = [
            (self.hidden @ weight.T + bias - target).square().mean()
            for (weight, bias), target in zip(self.decoders, double("Y"), strict=True)
        ]

    def backward(self, aggregator: Aggregator) -> None:
        mtrl.backward(
            self.losses,
            shared=self.encoder,
            private=self.private,
            representation=[self.hidden],
            aggregator=aggregator,
        )

    def representation_gradients(self) -> Tensor:
        rows = [torch.autograd.grad(loss, self.hidden, retain_graph=True)[0].flatten() for loss in self.losses]
        return torch.stack(rows)


def flat_grad(leaves) -> Tensor:
    return torch.cat([leaf.grad.flatten() for leaf in leaves])


@vectors
def test_unit_weights_give_what_the_official_code_gives(vector):
    model = Supervised(vector["model"])
    model.backward(make("aligned_ub", **vector["hyperparameters"], weights=(1.0,) * len(model.losses)))
    rtol, atol = vector["tolerance"]["rtol"], vector["tolerance"]["atol"]
    expected = torch.tensor(vector["gradient"], dtype=torch.float64)
    assert_close(flat_grad(model.encoder), expected, rtol=rtol, atol=atol)
    for decoder, gradient in zip(model.decoders, vector["decoder_grads"], strict=True):
        assert_close(flat_grad(decoder), torch.tensor(gradient, dtype=torch.float64), rtol=rtol, atol=atol)


@vectors
def test_plain_function_of_representation_gradients_is_the_cotangent(vector):
    model = Supervised(vector["model"])
    method = make("aligned_ub", **vector["hyperparameters"], weights=(1.0,) * len(model.losses))
    cotangent = method(model.representation_gradients()).reshape(model.hidden.shape)
    found = torch.cat([leaf.flatten() for leaf in torch.autograd.grad(model.hidden, model.encoder, cotangent)])
    expected = torch.tensor(vector["gradient"], dtype=torch.float64)
    assert_close(found, expected, rtol=vector["tolerance"]["rtol"], atol=vector["tolerance"]["atol"])


@pytest.mark.parametrize(("name", "expected"), [("aligned_ub", 1), ("aligned", 3)])
def test_encoder_is_passed_through_once_and_not_once_per_task(name, expected):
    model = Supervised(VECTORS[-1]["model"])
    passes = []
    model.before_tanh.register_hook(passes.append)
    mtrl.backward(model.losses, shared=model.encoder, representation=[model.hidden], aggregator=make(name))
    assert len(model.losses) == 3
    assert len(passes) == expected


@pytest.mark.parametrize("case", FULL_RANK)
def test_on_a_jacobian_it_is_aligned_mtl_of_its_rows(case):
    assert torch.equal(make("aligned_ub")(FULL_RANK[case]), make("aligned")(FULL_RANK[case]))


def test_backward_without_a_representation_is_refused():
    model = Supervised(VECTORS[0]["model"])
    with pytest.raises(ValueError, match="representation"):
        mtrl.backward(model.losses, shared=model.encoder, aggregator=make("aligned_ub"))


# ---------------------------------------------------------------------------------------- tasks on samples of their own


def regression(network, weights=None):
    """Return parameters, loss and data of three regressions, each on inputs of its own, in float64."""
    generator = torch.Generator().manual_seed(0)
    shared, private = ({name: leaf.double() for name, leaf in leaves.items()} for leaves in network.init(generator))
    inputs = torch.randn(3, 6, 4, generator=generator, dtype=torch.float64)
    targets = (
        torch.tensor([1.0, 30.0, 0.01]).double()[:, None, None] * torch.randn(3, 6, 2, generator=generator).double()
    )
    frozen = (inputs, targets, torch.arange(3)[:, None].expand(3, 6))

    def loss(shared, private, frozen):
        inputs, targets, task = frozen
        return (network(shared, private, inputs, task) - targets).square().mean(), {}

    method = make("aligned_ub", weights=weights)
    method.setup(3, [leaf.shape for leaf in shared.values()], torch.device("cpu"))
    probe = {name: leaf.double() for name, leaf in network.probe(6).items()}
    return shared, private, loss, frozen, method, probe


def multi_head(output_dim: int = 2) -> MultiHead:
    config = MultiHead.Config(hidden_dims=(7, 5))
    return MultiHead(config, input_dim=4, output_dim=output_dim, num_tasks=3, output_bound=0.5)


@pytest.mark.parametrize("weights", [None, (0.5, 0.2, 0.3)])
def test_engine_weighs_by_the_inverse_length_of_the_representation_gradients(weights):
    network = multi_head()
    shared, private, loss, frozen, method, probe = regression(network, weights)
    lengths, rows, own = [], [], []
    for task in range(3):
        trunk = {name: leaf.clone().requires_grad_() for name, leaf in shared.items()}
        head = {name: leaf[task].clone().requires_grad_() for name, leaf in private.items()}
        features = network.encode(trunk, frozen[0][task])
        error = (network.head(head, features) - frozen[1][task]).square().mean()
        found = torch.autograd.grad(error, [features, *trunk.values(), *head.values()])
        lengths.append(found[0].norm())
        rows.append(found[1 : 1 + len(trunk)])
        own.append(found[1 + len(trunk) :])
    lengths = torch.stack(lengths)
    expected = lengths.min() / lengths * torch.tensor(weights or [1 / 3] * 3, dtype=torch.float64)
    update = aggregate(loss, shared, private, frozen, method, torch.Generator(), Stopwatch(), probe)
    assert update.weights is not None
    assert torch.allclose(update.weights, expected, rtol=1e-12)
    for index, leaf in enumerate(update.shared.values()):
        stacked = torch.stack([row[index] for row in rows])
        assert torch.allclose(leaf, torch.tensordot(expected, stacked, dims=1), rtol=1e-10)
    assert list(update.private) == list(private)
    for index, leaf in enumerate(update.private.values()):
        assert torch.allclose(leaf, torch.stack([task[index] for task in own]), rtol=1e-12)


def test_balance_is_diagonal_where_tasks_share_no_samples_and_not_where_they_do():
    rows = torch.zeros(3, 3, 4, dtype=torch.float64)
    rows[range(3), range(3)] = gaussian(3, 4) * torch.tensor([[1.0], [20.0], [0.5]]).double()
    apart = rows.flatten(1)
    lengths = apart.norm(dim=1)
    assert torch.allclose(balance_matrix(apart @ apart.T), (lengths.min() / lengths).diag(), atol=1e-14)
    together = Supervised(VECTORS[-1]["model"]).representation_gradients()
    balance = balance_matrix(together @ together.T)
    assert (balance - balance.diagonal().diag()).abs().max() > 1e-2


def test_gramian_of_the_representation_is_that_of_the_probe():
    network = Ensemble(multi_head(output_dim=1), size=2)
    shared, private, loss, frozen, _, probe = regression(network)
    assert {name: leaf.shape for name, leaf in probe.items()} == {"0.probe": (3, 6, 5), "1.probe": (3, 6, 5)}
    found = representation_gramian(loss, shared, private, frozen, probe)
    step = 1e-6
    # Along each coordinate of the probes by central differences.
    squared = torch.zeros(3, dtype=torch.float64)
    for name, leaf in probe.items():
        for row in range(leaf.shape[1]):
            for column in range(leaf.shape[2]):
                ends = []
                for sign in (1, -1):
                    moved = {key: value.clone() for key, value in probe.items()}
                    moved[name][:, row, column] += sign * step
                    ends.append(losses_of(loss, shared, private | moved, frozen))
                squared += ((ends[0] - ends[1]) / (2 * step)).square()
    assert torch.allclose(found, squared.diag(), rtol=1e-5)


def losses_of(loss, shared, private, frozen) -> Tensor:
    tasks = [
        loss(shared, {name: leaf[task] for name, leaf in private.items()}, tuple(part[task] for part in frozen))[0]
        for task in range(3)
    ]
    return torch.stack(tasks)


# ----------------------------------------------------------------------------------------------------------- the agent


def test_agent_with_heads_learns_and_is_diagnosed():
    agent = build("multi_head", "aligned_ub")
    before = parameters(agent)
    found = agent.diagnose(batch_for(1))
    assert found["condition_number_after/critic"].isfinite()
    metrics = agent.update(batch_for(0))
    weights = metrics["critic_weight"]
    assert weights.shape == (NUM_TASKS,)
    assert weights.max() == pytest.approx(1 / NUM_TASKS, rel=1e-6)  # the task with the shortest gradient
    assert ((weights > 0) & (weights <= weights.max())).all()
    moved = {path for path, leaf in parameters(agent).items() if not torch.equal(leaf, before[path])}
    assert {
        "/critic/shared/0.hidden.0.weight",
        "/critic/private/1.output.weight",
        "/actor/shared/hidden.1.bias",
    } <= moved


def test_agent_forgets_a_batch_that_is_not_finite():
    agent = build("multi_head", "aligned_ub")
    agent.update(batch_for(0))
    before = {path: leaf.clone() for path, leaf in parameters(agent).items()}
    batch = batch_for(1)
    batch.reward[1, 0] = float("nan")
    assert agent.update(batch)["critic_nonfinite"].tolist() == [False, True, False]
    assert all(torch.equal(leaf, before[path]) for path, leaf in parameters(agent).items())


def test_network_without_heads_is_refused():
    mlp = MLP(MLP.Config(hidden_dims=(4,)), input_dim=3, output_dim=1, num_tasks=2, output_bound=0.1)
    assert not isinstance(mlp, EncoderNetwork)
    assert Ensemble(mlp, size=2).probe(5) == {}
    with pytest.raises(ValueError, match="multi_head"):
        build("mlp", "aligned_ub")


def test_run_without_heads_is_refused_before_it_starts():
    settings = cli.parse(["--env", "toy", "--actor.aggregator", "aligned_ub"])
    spec = EnvSpec(task_names=("a", "b"), envs_per_task=1, obs_dim=3, action_dim=2, max_episode_steps=9, num_goals=1)
    with pytest.raises(ValueError, match=r"actor: .*multi_head"):
        assembly.make_agent(settings, spec, torch.device("cpu"))
