"""`mtrl.backward` fills the gradients of any torch model as the method says."""

import pytest
import torch
from torch import Tensor, nn

import mtrl
from mtrl.aggregators import make
from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.mean import Mean
from mtrl.aggregators.system import Aggregation
from tests.aggregators.traits import repeats_itself, sees_gradients_of_parameters

NUM_TASKS, INPUT_DIM, OUTPUT_DIM, BATCH = 3, 4, 2, 6
every_method = pytest.mark.parametrize("method", sees_gradients_of_parameters())
WEIGHTS = [None, (0.5, 0.3, 0.2), (2.0, 0.0, 1.0)]


def grad_of(parameter: Tensor) -> Tensor:
    """Return the gradient, which must be there."""
    assert parameter.grad is not None
    return parameter.grad


class Model(nn.Module):
    """A trunk, a head per task, and a shared parameter that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(INPUT_DIM, 6), nn.Tanh())
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.unused = nn.Parameter(torch.ones(2))
        self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(NUM_TASKS))
        self.double()
        with torch.no_grad():
            for leaf in self.parameters():
                leaf.copy_(torch.randn(leaf.shape, generator=generator, dtype=torch.float64))
        self.inputs = torch.randn(BATCH, INPUT_DIM, generator=generator, dtype=torch.float64)
        self.targets = torch.randn(NUM_TASKS, BATCH, 1, generator=generator, dtype=torch.float64)

    def shared(self) -> list[nn.Parameter]:
        return [*self.trunk.parameters(), self.scale, self.unused]

    def losses(self) -> list[Tensor]:
        features = self.scale * self.trunk(self.inputs)
        return [
            (head(features) - target).square().mean() for head, target in zip(self.heads, self.targets, strict=True)
        ]

    def jacobian(self) -> Tensor:
        """Return the rows over the shared parameters, by one backward pass per task."""
        rows = []
        for task in range(NUM_TASKS):
            shared = [leaf for leaf in self.shared() if leaf.requires_grad]
            gradients = torch.autograd.grad(self.losses()[task], shared, materialize_grads=True)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
        return torch.stack(rows)


def flat_grad(parameters) -> Tensor:
    return torch.cat([grad_of(parameter).flatten() for parameter in parameters])


@every_method
def test_backward_fills_grad_with_the_direction_and_the_heads_own_gradients(method):
    model = Model()
    mtrl.backward(
        model.losses(),
        shared=model.trunk.parameters(),
        private=model.heads.parameters(),
        aggregator=make(method),
        generator=torch.Generator().manual_seed(2),
    )
    trunk_size = sum(leaf.numel() for leaf in model.trunk.parameters())
    jacobian, losses = model.jacobian()[:, :trunk_size], torch.stack(model.losses()).detach()
    expected = make(method)(jacobian, losses, torch.Generator().manual_seed(2))
    assert torch.allclose(flat_grad(model.trunk.parameters()), expected, rtol=1e-9, atol=1e-12)
    assert model.scale.grad is None
    for task, head in enumerate(model.heads):
        own = torch.autograd.grad(model.losses()[task], list(head.parameters()))
        for parameter, gradient in zip(head.parameters(), own, strict=True):
            assert torch.allclose(grad_of(parameter), gradient, rtol=1e-12)


@every_method
def test_backward_over_all_shared_parameters_gives_the_unused_one_zeros(method):
    model = Model()
    losses = torch.stack(model.losses()).detach()
    expected = make(method)(model.jacobian(), losses, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    mtrl.backward(model.losses(), shared=model.shared(), aggregator=make(method), generator=generator)
    assert torch.allclose(flat_grad(model.shared()), expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(grad_of(model.unused), torch.zeros(2, dtype=torch.float64))
    assert grad_of(model.scale).shape == ()
    assert all(parameter.grad is None for parameter in model.heads.parameters())


@pytest.mark.parametrize("method", [name for name in sees_gradients_of_parameters() if repeats_itself(name)])
def test_backward_accumulates_like_torch(method):
    model = Model()
    aggregator = make(method)
    private = list(model.heads.parameters())

    def call():
        generator = torch.Generator().manual_seed(2)
        mtrl.backward(
            model.losses(), shared=model.shared(), private=private, aggregator=aggregator, generator=generator
        )
        return flat_grad([*model.shared(), *private])

    once = call().clone()
    assert torch.allclose(call(), 2 * once, rtol=1e-12)


@every_method
def test_backward_keeps_the_memory_order_of_the_parameters(method):
    # As torch's own backward does; fused optimisers rely on it.
    heads = torch.randn(NUM_TASKS, 4, 10).requires_grad_()
    trunk = torch.randn(10, 4).requires_grad_()
    losses = torch.einsum("toi,io->t", heads, trunk * trunk)
    mtrl.backward(losses, shared=[trunk], private=[heads], aggregator=make(method))
    assert grad_of(heads).stride() == heads.stride()
    assert grad_of(trunk).stride() == trunk.stride()
    assert torch.allclose(grad_of(heads), (trunk * trunk).T.expand(NUM_TASKS, 4, 10).detach())


def test_backward_with_the_mean_equals_torch_on_the_mean_loss_for_the_trunk():
    model, plain = Model(), Model()
    mtrl.backward(model.losses(), shared=model.trunk.parameters(), aggregator=make("mean"))
    torch.stack(plain.losses()).mean().backward()
    assert torch.allclose(flat_grad(model.trunk.parameters()), flat_grad(plain.trunk.parameters()), rtol=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_backward_by_losses_equals_backward_by_rows(weights):
    class MeanByGramian(Aggregator):
        def aggregate(self, system):
            uniform = (1 / NUM_TASKS,) * NUM_TASKS
            return Aggregation(torch.tensor(weights or uniform, dtype=torch.float64))

    by_losses, by_rows = Model(), Model()
    for model, aggregator in ((by_losses, Mean(Mean.Config(weights=weights))), (by_rows, MeanByGramian())):
        mtrl.backward(model.losses(), shared=model.shared(), private=model.heads.parameters(), aggregator=aggregator)
    for parameters in ("shared", "private"):
        found, expected = (
            flat_grad(model.shared() if parameters == "shared" else model.heads.parameters())
            for model in (by_losses, by_rows)
        )
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_backward_takes_losses_as_one_tensor():
    model, other = Model(), Model()
    mtrl.backward(torch.stack(model.losses()), shared=model.shared(), aggregator=make("aligned"))
    mtrl.backward(other.losses(), shared=other.shared(), aggregator=make("aligned"))
    assert torch.allclose(flat_grad(model.shared()), flat_grad(other.shared()), rtol=1e-12)


def test_backward_trains_a_model():
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = torch.stack(model.losses()).detach()
    aggregator = make("aligned")
    for _ in range(100):
        optimizer.zero_grad()
        mtrl.backward(model.losses(), shared=model.shared(), private=model.heads.parameters(), aggregator=aggregator)
        optimizer.step()
    assert (torch.stack(model.losses()) < 0.5 * before).all()


@pytest.mark.parametrize(
    ("method", "broken"),
    [(name, what) for name in sees_gradients_of_parameters() for what in ("loss", "head")]
    + [(name, "gradient") for name in sees_gradients_of_parameters() if make(name).need != Need.LOSSES],
)
def test_backward_throws_away_an_update_that_is_not_finite(method, broken):
    """A scaler of losses overflows now and then, by design: one such step must not stay in a method's averages."""
    model, with_it, without = Model(), make(method), make(method)
    step(model, with_it)
    before = {name: value.clone() for name, value in with_it.state_dict().items()}
    step(model, with_it, broken)
    assert flat_grad(model.shared()).isnan().all()
    assert all(torch.equal(value, before[name]) for name, value in with_it.state_dict().items())
    step(model, without)
    for _ in range(2):
        step(model, without)
        expected = flat_grad(model.shared())
        step(model, with_it)
        assert torch.equal(flat_grad(model.shared()), expected)


def step(model: Model, aggregator: Aggregator, broken: str | None = None) -> None:
    """Fill the gradients; `broken` makes a loss, the gradient of one task, or that of its head infinite."""
    model.zero_grad()
    losses = model.losses()
    if broken == "loss":
        losses[1] = losses[1] * torch.inf
    if broken == "gradient":
        losses[1] = losses[1] + (model.scale - model.scale.detach()).abs().sqrt()  # 0 at an infinite slope
    if broken == "head":
        *_, bias = model.heads[1].parameters()
        losses[1] = losses[1] + (bias - bias.detach()).abs().sqrt().sum()
    generator = torch.Generator().manual_seed(0)
    mtrl.backward(
        losses, shared=model.shared(), private=model.heads.parameters(), aggregator=aggregator, generator=generator
    )


def test_backward_leaves_frozen_parameters_out():
    model = Model()
    model.trunk[0].weight.requires_grad_(False)
    mtrl.backward(model.losses(), shared=model.shared(), private=model.heads.parameters(), aggregator=make("aligned"))
    assert model.trunk[0].weight.grad is None
    rows = model.jacobian()
    assert torch.allclose(flat_grad([p for p in model.shared() if p.requires_grad]), make("aligned")(rows))


def test_backward_takes_parameters_of_several_dtypes():
    model = Model()
    expected = Model()
    mtrl.backward(expected.losses(), shared=expected.shared(), aggregator=make("aligned"))
    model.scale = nn.Parameter(model.scale.detach().float())
    mtrl.backward(model.losses(), shared=model.shared(), aggregator=make("aligned"))
    assert grad_of(model.scale).dtype == torch.float32
    assert torch.allclose(
        flat_grad([p for p in model.shared() if p is not model.scale]),
        flat_grad([p for p in expected.shared() if p is not expected.scale]),
        rtol=1e-5,
    )


def test_nothing_is_observed_of_an_update_that_was_thrown_away():
    model, aggregator = Model(), make("famo")
    step(model, aggregator, "loss")
    before = {name: value.clone() for name, value in aggregator.state_dict().items()}
    aggregator.observe(torch.ones(NUM_TASKS))
    assert all(torch.equal(value, before[name]) for name, value in aggregator.state_dict().items())
    step(model, aggregator)
    aggregator.observe(torch.ones(NUM_TASKS))
    assert not torch.equal(aggregator.get_buffer("logits.values"), before["logits.values"])


def test_what_has_no_state_takes_any_number_of_tasks_in_silence():
    for method in ("mean", "sum", "graddrop", "pcgrad"):
        model, aggregator = Model(), make(method)
        mtrl.backward(model.losses(), shared=model.shared(), aggregator=aggregator)
        mtrl.backward(model.losses()[:2], shared=model.shared(), aggregator=aggregator)


@pytest.mark.parametrize("method", ["moco", "famo"])
def test_another_number_of_tasks_does_not_forget_in_silence(method):
    model, aggregator = Model(), make(method)
    mtrl.backward(model.losses(), shared=model.shared(), aggregator=aggregator)
    with pytest.warns(UserWarning, match="forgets what it has learned"):
        mtrl.backward(model.losses()[:2], shared=model.shared(), aggregator=aggregator)


def test_state_goes_on_in_another_object():
    model, first, second = Model(), make("moco"), make("moco")
    shapes = [leaf.shape for leaf in model.shared()]
    step(model, first)
    second.setup(NUM_TASKS, shapes, torch.device("cpu:0"))
    second.load_state_dict(first.state_dict())
    step(model, first)
    expected = flat_grad(model.shared())
    step(model, second)
    assert torch.equal(flat_grad(model.shared()), expected)


def test_backward_refuses_a_loss_that_is_no_scalar():
    model = Model()
    with pytest.raises(ValueError, match=r"losses\[1\] must be a scalar, got shape \(2,\)"):
        mtrl.backward([model.losses()[0], torch.zeros(2)], shared=model.shared(), aggregator=make("mean"))


def test_backward_refuses_to_work_without_losses():
    with pytest.raises(ValueError, match="losses is empty"):
        mtrl.backward([], shared=Model().shared(), aggregator=make("mean"))


def test_backward_refuses_to_work_without_shared_parameters():
    with pytest.raises(ValueError, match="no parameter that trains"):
        mtrl.backward(Model().losses(), shared=[], aggregator=make("mean"))


def test_backward_refuses_a_parameter_that_is_shared_and_private():
    model = Model()
    with pytest.raises(ValueError, match="1 parameters are both shared and private"):
        mtrl.backward(model.losses(), shared=model.shared(), private=[model.scale], aggregator=make("mean"))


def test_backward_refuses_the_wrong_number_of_task_weights():
    model = Model()
    with pytest.raises(ValueError, match="3 tasks, 2 weights"):
        mtrl.backward(model.losses(), shared=model.shared(), aggregator=make("mean", weights=(1.0, 2.0)))
