"""The engine gives the gradients that a loop over the tasks gives, and combines them as the method says."""

import pytest
import torch
from torch import Tensor

from mtrl.aggregators import make, names
from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.system import Aggregation, GradientSystem, gramian
from mtrl.gradients import Update, aggregate, losses_at, measure, task_gradients
from mtrl.networks import REGISTRY
from mtrl.registry import resolve
from mtrl.timing import Stopwatch
from tests.aggregators.traits import sees_gradients_of_parameters

NUM_TASKS, INPUT_DIM, OUTPUT_DIM, BATCH = 3, 4, 2, 6
every_network = pytest.mark.parametrize("network_name", list(REGISTRY))
# Those that look at a representation, which only some networks name, are in tests/aggregators/test_aligned_ub.py.
every_method = pytest.mark.parametrize("method", sees_gradients_of_parameters())
WEIGHTS = [None, (0.5, 0.3, 0.2), (2.0, 0.0, 1.0)]


class Problem:
    """Regression of three tasks with a network of the package, in float64."""

    def __init__(self, network_name: str) -> None:
        network = resolve(REGISTRY, "network", network_name)
        self.network = network(
            network.Config(hidden_dims=(7, 5)),
            input_dim=INPUT_DIM,
            output_dim=OUTPUT_DIM,
            num_tasks=NUM_TASKS,
            output_bound=0.5,
        )
        generator = torch.Generator().manual_seed(0)
        shared, private = self.network.init(generator)
        self.shared = {name: leaf.double() for name, leaf in shared.items()}
        self.private = {name: leaf.double() for name, leaf in private.items()}
        inputs = torch.randn(NUM_TASKS, BATCH, INPUT_DIM, generator=generator, dtype=torch.float64)
        targets = torch.randn(NUM_TASKS, BATCH, OUTPUT_DIM, generator=generator, dtype=torch.float64)
        task = torch.arange(NUM_TASKS)[:, None].expand(NUM_TASKS, BATCH)
        self.frozen = (inputs, targets, task)

    def loss(self, shared, private, frozen):
        inputs, targets, task = frozen
        found = self.network(shared, private, inputs, task)
        return (found - targets).square().mean(), {"mean_output": found.mean()}

    def loop(self) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Return losses, rows and private gradients by one backward pass per task."""
        losses, rows, own = [], [], []
        for task in range(NUM_TASKS):
            shared = {name: leaf.clone().requires_grad_() for name, leaf in self.shared.items()}
            private = {name: leaf[task].clone().requires_grad_() for name, leaf in self.private.items()}
            loss, _ = self.loss(shared, private, tuple(part[task] for part in self.frozen))
            loss.backward()
            losses.append(loss.detach())
            rows.append({name: leaf.grad for name, leaf in shared.items()})
            own.append({name: leaf.grad for name, leaf in private.items()})
        return (
            torch.stack(losses),
            {name: torch.stack([row[name] for row in rows]) for name in self.shared},
            {name: torch.stack([row[name] for row in own]) for name in self.private},
        )

    def aggregate(self, aggregator: Aggregator, seed: int = 0, stopwatch: Stopwatch | None = None) -> Update:
        aggregator.setup(NUM_TASKS, [leaf.shape for leaf in self.shared.values()], torch.device("cpu"))
        generator = torch.Generator().manual_seed(seed)
        return aggregate(
            self.loss, self.shared, self.private, self.frozen, aggregator, generator, stopwatch or Stopwatch()
        )


def flat(rows) -> Tensor:
    return torch.cat([leaf.flatten(1) for leaf in rows.values()], dim=1)


def assert_equal_leaves(found, expected, tolerance: float = 1e-12) -> None:
    assert list(found) == list(expected)
    for name, leaf in expected.items():
        assert torch.allclose(found[name], leaf, rtol=tolerance, atol=tolerance), name


# ---- task_gradients


@every_network
def test_task_gradients_equal_a_loop_over_the_tasks(network_name):
    problem = Problem(network_name)
    losses, rows, own = problem.loop()
    found = task_gradients(problem.loss, problem.shared, problem.private, problem.frozen)
    assert torch.allclose(found.losses, losses, rtol=1e-12)
    assert_equal_leaves(found.shared, rows)
    assert_equal_leaves(found.private, own)
    assert found.metrics["mean_output"].shape == (NUM_TASKS,)


@every_network
def test_losses_at_evaluates_the_same_losses_elsewhere(network_name):
    problem = Problem(network_name)
    here = losses_at(problem.loss, problem.shared, problem.private, problem.frozen)
    assert torch.allclose(here, problem.loop()[0], rtol=1e-12)
    problem.shared = {name: leaf + 0.1 for name, leaf in problem.shared.items()}
    there = losses_at(problem.loss, problem.shared, problem.private, problem.frozen)
    assert not torch.allclose(there, here)
    assert torch.allclose(there, problem.loop()[0], rtol=1e-12)
    assert not there.requires_grad


# ---- aggregate


@every_network
@every_method
def test_update_is_what_the_method_makes_of_the_rows(network_name, method):
    problem = Problem(network_name)
    losses, rows, own = problem.loop()
    update = problem.aggregate(make(method), seed=3)
    expected = make(method)(flat(rows), losses, torch.Generator().manual_seed(3))
    found = torch.cat([leaf.flatten() for leaf in update.shared.values()])
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert {name: leaf.shape for name, leaf in update.shared.items()} == {
        name: leaf.shape for name, leaf in problem.shared.items()
    }
    assert_equal_leaves(update.private, own)
    assert torch.allclose(update.losses, losses, rtol=1e-12)
    assert not update.nonfinite.any()
    assert not any(value.requires_grad for value in [update.losses, *update.shared.values(), *update.metrics.values()])


@every_network
@pytest.mark.parametrize("weights", WEIGHTS)
def test_mean_by_one_backward_pass_equals_combining_the_rows(network_name, weights):
    # The private gradients are the own task's, whatever its weight, zero included.
    problem = Problem(network_name)
    _, rows, own = problem.loop()
    update = problem.aggregate(make("mean", weights=weights))
    row_weights = torch.tensor(weights or (1 / 3, 1 / 3, 1 / 3), dtype=torch.float64)
    expected = {name: torch.tensordot(row_weights, leaf, dims=1) for name, leaf in rows.items()}
    assert_equal_leaves(update.shared, expected)
    assert_equal_leaves(update.private, own)
    assert update.weights is not None
    assert torch.allclose(update.weights, row_weights)


@every_network
def test_mean_that_asked_for_rows_would_get_the_same(network_name):
    class MeanOfRows(Aggregator):
        need = Need.ROWS

        def aggregate(self, system):
            assert system.losses is not None
            assert system.rows is not None
            return Aggregation(None, direction=tuple(leaf.mean(0) for leaf in system.rows))

    problem = Problem(network_name)
    by_rows, by_losses = problem.aggregate(MeanOfRows()), problem.aggregate(make("mean"))
    assert_equal_leaves(by_rows.shared, by_losses.shared)
    assert_equal_leaves(by_rows.private, by_losses.private)
    assert torch.equal(by_rows.nonfinite, by_losses.nonfinite)


def test_methods_see_no_more_than_they_need():
    seen = []

    class Spy(Aggregator):
        def aggregate(self, system):
            seen.append([field for field, value in system._asdict().items() if value is not None])
            return Aggregation(torch.ones(NUM_TASKS))

    problem = Problem("mlp")
    for need in (need for need in Need if need != Need.REPRESENTATION):
        spy = Spy()
        spy.need = need
        problem.aggregate(spy)
    assert seen == [
        ["num_tasks", "losses", "generator"],
        ["num_tasks", "losses", "gramian", "generator"],
        ["num_tasks", "losses", "rows", "generator"],
        ["num_tasks", "losses", "gramian", "generator", "losses_ahead"],
    ]


@pytest.mark.parametrize("method", ["mean", "aligned"])
def test_private_parameter_that_the_loss_ignores_gets_zeros(method):
    def loss(shared, private, frozen):
        del private
        return (shared["w"] * frozen).sum(), {}

    aggregator = make(method)
    aggregator.setup(2, [torch.Size([2])], torch.device("cpu"))
    private = {"unused": torch.ones(2, 3)}
    shared, frozen = {"w": torch.ones(2)}, torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    update = aggregate(loss, shared, private, frozen, aggregator, torch.Generator(), Stopwatch())
    assert torch.equal(update.private["unused"], torch.zeros(2, 3))


@pytest.mark.parametrize("method", ["mean", "aligned"])
def test_parameters_are_left_as_they_are(method):
    problem = Problem("multi_head")
    before = [leaf.clone() for leaf in [*problem.shared.values(), *problem.private.values()]]
    problem.aggregate(make(method))
    after = [*problem.shared.values(), *problem.private.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(leaf.requires_grad or leaf.grad is not None for leaf in after)


def test_stopwatch_counts_the_aggregation_where_there_is_one():
    problem = Problem("mlp")
    seconds = {}
    for method in ("mean", "aligned"):
        stopwatch = Stopwatch()
        problem.aggregate(make(method), stopwatch=stopwatch)
        seconds[method] = stopwatch.seconds
    assert "aggregation" not in seconds["mean"]
    assert seconds["aligned"]["aggregation"] > 0


# ---- nonfinite


@every_network
@every_method
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_flags_exactly_its_task(network_name, method, bad):
    problem = Problem(network_name)
    problem.frozen[1][1, 0, 0] = bad  # a target of task 1
    update = problem.aggregate(make(method))
    assert update.nonfinite.tolist() == [False, True, False]


def root_loss(shared, private, frozen):
    """Return sqrt(|x . w|) + head: at x = 0 the loss is finite and the gradient of w is inf * 0 = nan."""
    return (frozen @ shared["w"]).abs().sqrt() + private["head"].sum(), {}


ROOT = ({"w": torch.tensor([1.0, 2.0])}, {"head": torch.ones(3, 1)})


def run_root(method, frozen, loss=root_loss):
    aggregator = make(method)
    aggregator.setup(3, [torch.Size([2])], torch.device("cpu"))
    return aggregate(loss, *ROOT, frozen, aggregator, torch.Generator(), Stopwatch())


@pytest.mark.parametrize("method", [name for name in names() if make(name).need >= Need.GRAMIAN])
def test_gradient_that_is_not_finite_flags_exactly_its_task(method):
    update = run_root(method, torch.tensor([[1.0, 1.0], [3.0, 1.0], [0.0, 0.0]]))
    assert update.losses.isfinite().all()
    assert update.nonfinite.tolist() == [False, False, True]


@pytest.mark.parametrize("method", [name for name in names() if make(name).need == Need.LOSSES])
def test_gradient_of_a_sum_is_not_looked_at_for_want_of_rows(method):
    # Who takes the step measures it, and flags all tasks: tests/agents/test_mtsac_nonfinite.py.
    update = run_root(method, torch.tensor([[1.0, 1.0], [3.0, 1.0], [0.0, 0.0]]))
    assert update.losses.isfinite().all()
    assert not all(leaf.isfinite().all() for leaf in update.shared.values())
    assert update.nonfinite.tolist() == [False, False, False]


@every_method
def test_private_gradient_that_is_not_finite_flags_exactly_its_task(method):
    def loss(shared, private, frozen):
        return (frozen @ shared["w"]) + (private["head"] - 1).abs().sqrt().sum() * (frozen[0] - 3), {}

    # Task 1 has head 1, where the root has an infinite derivative, times x - 3 = 0: nan. The others have head 2.
    shared = {"w": torch.tensor([1.0, 2.0])}
    private = {"head": torch.tensor([[2.0], [1.0], [2.0]])}
    frozen = torch.tensor([[1.0, 1.0], [3.0, 1.0], [3.0, 2.0]])
    aggregator = make(method)
    aggregator.setup(3, [torch.Size([2])], torch.device("cpu"))
    update = aggregate(loss, shared, private, frozen, aggregator, torch.Generator(), Stopwatch())
    assert update.nonfinite.tolist() == [False, True, False]
    assert all(leaf.isfinite().all() for leaf in update.shared.values())


@every_method
def test_finite_tasks_are_not_flagged(method):
    assert not run_root(method, torch.tensor([[1.0, 1.0], [3.0, 1.0], [1e-3, 0.0]])).nonfinite.any()


@every_method
def test_private_parameters_of_one_number_per_task_work(method):
    def loss(shared, private, frozen):
        return private["scale"] * (frozen @ shared["w"]), {}

    aggregator = make(method)
    aggregator.setup(3, [torch.Size([2])], torch.device("cpu"))
    shared, private = {"w": torch.tensor([1.0, 2.0])}, {"scale": torch.tensor([1.0, 2.0, 3.0])}
    frozen = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    update = aggregate(loss, shared, private, frozen, aggregator, torch.Generator(), Stopwatch())
    # d/dscale = x . w: 1, 2, 3.
    assert torch.equal(update.private["scale"], torch.tensor([1.0, 2.0, 3.0]))


# ---- measure


def test_measure_by_hand():
    # Rows (3, 0 | 0), (-3, 4 | 0), (0, 0 | 2) over two leaves: norms 3, 5, 2; cosines -9/15, 0, 0; one pair of three in
    # conflict. G = [[9, -9, 0], [-9, 25, 0], [0, 0, 4]]: eigenvalues 4 and (34 +- sqrt(34^2 - 4 * 144)) / 2.
    rows = (torch.tensor([[3.0, 0.0], [-3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0], [0.0], [2.0]]))
    found = measure(rows)
    assert torch.allclose(found["gradient_norm"], torch.tensor([3.0, 5.0, 2.0]).double())
    assert found["cosine"][0, 1] == pytest.approx(-0.6)
    assert found["conflict_share"] == pytest.approx(1 / 3)
    root = (34**2 - 4 * 144) ** 0.5
    assert found["condition_number"] == pytest.approx(((34 + root) / 2 / min(4, (34 - root) / 2)) ** 0.5)
    assert found["magnitude_similarity"] == pytest.approx((30 / 34 + 12 / 13 + 20 / 29) / 3)
    assert not any(name.endswith("_after") for name in found)


def test_measure_after_alignment_is_one():
    rows = (torch.randn(4, 9, generator=torch.Generator().manual_seed(0)),)
    aggregator = make("aligned")
    aggregator.setup(4, [torch.Size([9])], torch.device("cpu"))
    balance = aggregator.aggregate(GradientSystem(num_tasks=4, gramian=gramian(rows)))
    found = measure(rows, balance)
    assert found["condition_number"] > 1.5
    assert found["magnitude_similarity"] < 0.999
    assert found["condition_number_after"] == pytest.approx(1, abs=1e-10)
    assert found["magnitude_similarity_after"] == pytest.approx(1, abs=1e-10)


def test_measure_without_mixing_has_nothing_to_say_about_after():
    rows = (torch.ones(2, 3),)
    assert "condition_number_after" not in measure(rows, Aggregation(torch.ones(2)))


def test_measure_of_one_task_has_no_conflict():
    found = measure((torch.ones(1, 3),))
    assert found["conflict_share"] == 0
    assert found["condition_number"] == 1
