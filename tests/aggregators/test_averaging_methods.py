"""MoCo and DB-MTL: values by hand, and what both keep."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.base import Need
from mtrl.aggregators.system import GradientSystem
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK, gaussian, orthogonal

METHODS = ("moco", "db_mtl")
ALL = {**FULL_RANK, **DEGENERATE}
both = pytest.mark.parametrize("name", METHODS)
profile = settings(max_examples=25, derandomize=True, deadline=None, database=None)


def losses_for(num_tasks: int, seed: int = 0) -> Tensor:
    return gaussian(num_tasks, 1, seed + 500)[:, 0].exp()


def directions(name: str, jacobians: list[Tensor], transform=lambda jacobian, losses: (jacobian, losses)) -> Tensor:
    """Return the directions of several updates of one object, each given what `transform` makes of it."""
    aggregator = make(name)
    found = []
    for step, original in enumerate(jacobians):
        jacobian, losses = transform(original, losses_for(len(original), step))
        found.append(aggregator(jacobian, losses=losses))
    return torch.stack(found)


def several(num_tasks: int, num_params: int) -> list[Tensor]:
    return [gaussian(num_tasks, num_params, seed) for seed in range(4)]


# ---- values by hand


def test_moco_by_hand():
    # Rows of the length of their loss: (1, 0), (0, 3). Averages, halfway from zero: (0.5, 0), (0, 1.5).
    # Slopes 0.25 / 2 and 2.25 / 2, times 0.1: weights softmax(0.4875, 0.3875).
    aggregator = make("moco")
    jacobian = torch.tensor([[2.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    losses = torch.tensor([1.0, 3.0], dtype=torch.float64)
    first = torch.tensor([0.4875, 0.3875], dtype=torch.float64).softmax(0)
    assert torch.allclose(aggregator(jacobian, losses=losses), first * torch.tensor([0.5, 1.5]).double(), rtol=1e-14)
    # Update 2 moves by 0.5 / sqrt(2) of what is left, and the weights by 0.1 / sqrt(2).
    left = 1 - 0.5 / 2**0.5
    averages = losses * (1 - 0.5 * left)
    second = (first - 0.1 / 2**0.5 * averages.square() * first).softmax(0)
    assert torch.allclose(aggregator(jacobian, losses=losses), second * averages, rtol=1e-14)


def test_moco_pulls_weights_together_by_rho():
    # Without gradients to speak of, lambda - 0.1 rho lambda at rho = 10 is 0: equal weights.
    aggregator = make("moco", rho=10.0, gamma_decay=0.0)
    aggregator.setup(2, [torch.Size([2])], torch.device("cpu"))
    aggregator.load_state_dict(aggregator.state_dict() | {"task_weights": torch.tensor([0.9, 0.1]).double()})
    aggregator(torch.eye(2).double(), losses=torch.full((2,), 1e-8).double())
    assert torch.allclose(aggregator.state_dict()["task_weights"], torch.full((2,), 0.5).double(), rtol=1e-12)


def test_db_mtl_by_hand():
    # Gradients of the logarithms (3, 0) and (0, 4), a tenth of them in the averages: lengths 0.3 and 0.4. Both get 0.4.
    aggregator = make("db_mtl")
    jacobian = torch.tensor([[3.0, 0.0], [0.0, 8.0]], dtype=torch.float64)
    losses = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert torch.allclose(aggregator(jacobian, losses=losses), torch.full((2,), 0.2).double(), rtol=1e-7)
    # Update 2: 0.1 * 3 + 0.9 * 0.3 and so on: 0.57 and 0.76.
    assert torch.allclose(aggregator(jacobian, losses=losses), torch.full((2,), 0.38).double(), rtol=1e-7)


def test_db_mtl_without_average_gives_every_task_the_longest_length():
    jacobian = FULL_RANK["rows of length 0.01, 1 and 100"]
    found = make("db_mtl", beta=0.0)(jacobian, losses=torch.ones(3).double())
    lengths = jacobian.norm(dim=1)
    assert torch.allclose(found, (lengths.max() / lengths) @ jacobian / 3, rtol=1e-7)


# ---- what both keep


@both
def test_needs_the_rows(name):
    assert make(name).need == Need.ROWS


@both
def test_tasks_may_change_places(name):
    order = [3, 0, 4, 1, 2]
    found = directions(name, several(5, 8), lambda jacobian, losses: (jacobian[order], losses[order]))
    assert torch.allclose(found, directions(name, several(5, 8)), rtol=1e-11, atol=1e-13)


@both
def test_rotated_parameters_rotate_the_directions(name):
    Q = orthogonal(8)
    found = directions(name, several(5, 8), lambda jacobian, losses: (jacobian @ Q, losses))
    assert torch.allclose(found, directions(name, several(5, 8)) @ Q, rtol=1e-10, atol=1e-12)


@both
def test_directions_lie_in_the_span_of_the_gradients_seen(name):
    basis = torch.linalg.qr(gaussian(8, 3, 7))[0]
    found = directions(name, several(5, 8), lambda jacobian, losses: (jacobian @ basis @ basis.T, losses))
    assert (found - found @ basis @ basis.T).norm() <= 1e-12 * found.norm()


@profile
@given(data=st.data())
def test_lengths_of_the_gradients_over_twelve_decades_do_not_matter_to_moco(data):
    num_tasks = data.draw(st.sampled_from([1, 2, 50]))
    exponents = data.draw(st.lists(st.floats(-6, 6), min_size=num_tasks, max_size=num_tasks))
    scales = torch.tensor([10**exponent for exponent in exponents], dtype=torch.float64)
    found = directions("moco", several(num_tasks, 6), lambda jacobian, losses: (scales[:, None] * jacobian, losses))
    expected = directions("moco", several(num_tasks, 6))
    assert (found - expected).norm() <= 1e-9 * expected.norm()


@profile
@given(data=st.data())
def test_units_of_the_losses_over_twelve_decades_do_not_matter_to_db_mtl(data):
    # Gradients change with their losses. 1e-8 is added to losses above 1e-3: relative errors of 1e-5, once per task.
    num_tasks = data.draw(st.sampled_from([1, 2, 50]))
    exponents = data.draw(st.lists(st.floats(-1, 11), min_size=num_tasks, max_size=num_tasks))
    units = torch.tensor([10**exponent for exponent in exponents], dtype=torch.float64)
    jacobians = several(num_tasks, 6)
    found = directions("db_mtl", jacobians, lambda jacobian, losses: (units[:, None] * jacobian, units * losses))
    expected = directions("db_mtl", jacobians)
    assert (found - expected).norm() <= 1e-5 * num_tasks * expected.norm()


@both
def test_task_that_never_had_a_gradient_only_counts(name):
    def with_zero_row(jacobian, losses):
        return torch.cat([jacobian[:2], torch.zeros(1, 6).double(), jacobian[2:]]), losses_for(4, 9).index_copy(
            0, torch.tensor([0, 1, 3]), losses
        )

    found = directions(name, several(3, 6), with_zero_row)
    share = 1 if name == "moco" else 3 / 4  # weights that sum to 1, and a mean over four tasks
    assert torch.allclose(found, share * directions(name, several(3, 6)), rtol=1e-12)


@both
def test_task_that_loses_its_gradient_is_remembered(name):
    aggregator = make(name)
    jacobian = torch.eye(2).double()
    losses = torch.ones(2).double()
    aggregator(jacobian, losses=losses)
    found = aggregator(torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double(), losses=losses)
    assert found[1] > 0


@both
@pytest.mark.parametrize("case", ALL)
def test_any_system_gives_finite_directions_update_after_update(name, case):
    aggregator = make(name)
    for step in range(3):
        assert aggregator(ALL[case], losses=losses_for(len(ALL[case]), step)).isfinite().all()


@both
@pytest.mark.parametrize("loss", [0.0, -1.0, -1e12])
def test_loss_that_is_not_positive_does_not_turn_its_gradient_round(name, loss):
    jacobian = torch.eye(2).double()
    found = make(name)(jacobian, losses=torch.tensor([1.0, loss]).double())
    assert found.isfinite().all()
    assert (found > 0).all()


@both
def test_one_task_goes_along_the_average_of_its_gradients(name):
    jacobians = several(1, 5)
    found = directions(name, jacobians)
    for direction in found:
        assert direction.norm() > 0
    repeated = directions(name, [jacobians[0]] * 3)
    cosines = repeated @ jacobians[0][0] / (repeated.norm(dim=1) * jacobians[0].norm())
    assert torch.allclose(cosines, torch.ones(3).double(), rtol=1e-12)


@both
def test_leaves_are_one_vector(name):
    # A matrix, a scalar and a vector parameter, in float32, against one row of 11 numbers.
    shapes = [torch.Size([2, 3]), torch.Size([]), torch.Size([4])]
    leafwise, flat = make(name), make(name)
    leafwise.setup(3, shapes, torch.device("cpu"))
    for step in range(3):
        jacobian, losses = gaussian(3, 11, step).float(), losses_for(3, step)
        parts = jacobian.split([6, 1, 4], dim=1)
        rows = tuple(part.reshape(3, *shape) for part, shape in zip(parts, shapes, strict=True))
        found = leafwise.aggregate(GradientSystem(num_tasks=3, losses=losses, rows=rows)).direction
        assert found is not None
        assert [(leaf.shape, leaf.dtype) for leaf in found] == [(shape, torch.float32) for shape in shapes]
        expected = flat(jacobian, losses=losses)
        assert torch.allclose(torch.cat([leaf.flatten() for leaf in found]), expected, rtol=1e-6)


@profile
@given(data=st.data())
def test_moco_weights_are_positive_and_sum_to_one(data):
    num_tasks = data.draw(st.sampled_from([1, 2, 50]))
    exponents = st.lists(st.floats(-6, 6), min_size=num_tasks, max_size=num_tasks)
    aggregator = make("moco")
    for seed in range(3):
        losses = torch.tensor([10**exponent for exponent in data.draw(exponents)], dtype=torch.float64)
        aggregator(gaussian(num_tasks, 20, seed), losses=losses)
        weights = aggregator.state_dict()["task_weights"]
        assert (weights >= 0).all()  # exactly 0 where a loss of 1e6 squared stands in the exponent
        assert float(weights.sum()) == pytest.approx(1, rel=1e-12)


def test_moco_gives_all_weight_to_the_one_task_that_has_a_gradient():
    # Without memory the second update finds no task of the first: weights 0 and 1 become 1 and 0.
    aggregator = make("moco", beta=1.0, beta_decay=0.0)
    for task in (1, 0):
        jacobian = torch.zeros(2, 3).double()
        jacobian[task, 1] = 4.0
        found = aggregator(jacobian, losses=torch.full((2,), 5.0).double())
        assert torch.allclose(found, torch.tensor([0.0, 5.0, 0.0]).double(), rtol=1e-14)


def test_moco_shifts_weight_to_the_task_whose_gradient_is_short():
    # The norm of the sum falls where the long gradient weighs less.
    aggregator = make("moco")
    for _ in range(20):
        aggregator(torch.eye(2).double(), losses=torch.tensor([3.0, 1.0]).double())
    long, short = aggregator.state_dict()["task_weights"]
    assert short > long
