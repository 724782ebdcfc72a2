"""What every registered method keeps. A new entry of the registry is tested here without any edit.

A method may see losses; it is given ones. It may be random; it gets a freshly seeded generator in every call.
"""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import REGISTRY, make, names
from mtrl.aggregators.base import Aggregator, Need
from mtrl.registry import resolve
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK, gaussian, orthogonal
from tests.aggregators.traits import (
    draws_random_numbers,
    is_identity_for_one_task,
    learns,
    repeats_itself,
    weighs_rows,
)

ALL = {**FULL_RANK, **DEGENERATE}
every_method = pytest.mark.parametrize("name", names())
weighted_methods = pytest.mark.parametrize(
    "name", [name for name in names() if "weights" in resolve(REGISTRY, "aggregator", name).Config.__dataclass_fields__]
)
gramian_methods = pytest.mark.parametrize("name", [name for name in names() if make(name).need < Need.ROWS])
RANDOM_WEIGHTS = {"rlw"}
"""They draw one weight per task, whatever the gradients are: another row, zero or not, shifts what the others draw.
test_random_loss_weighting.py says what holds instead."""
profile = settings(max_examples=25, derandomize=True, deadline=None, database=None)


def direction(method: str | Aggregator, jacobian: Tensor, seed: int = 0) -> Tensor:
    aggregator = make(method) if isinstance(method, str) else method
    losses = torch.ones(len(jacobian), dtype=jacobian.dtype)
    return aggregator(jacobian, losses, torch.Generator().manual_seed(seed))


def assert_parallel(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Assert that both point the same way: the difference of their unit vectors is below `tolerance`."""
    assert expected.norm() > 0
    assert found.norm() > 0
    assert (found / found.norm() - expected / expected.norm()).norm() <= tolerance


@every_method
@pytest.mark.parametrize("length", [1e-6, 1.0, 1e6])
def test_one_task_gets_a_positive_multiple_of_its_gradient(name, length):
    gradient = length * gaussian(1, 7)
    assert_parallel(direction(name, gradient), gradient[0], 1e-14)


@pytest.mark.parametrize("name", [name for name in names() if name not in RANDOM_WEIGHTS])
def test_zero_row_does_not_turn_the_direction(name):
    # Two tasks, so that the order of a random method does not matter. The zero row may count as a task (a mean over
    # three rows is 2/3 of that over two), but it must not turn the direction, wherever it stands.
    jacobian = FULL_RANK["two in conflict"]
    expected = direction(name, jacobian)
    for place in range(3):
        padded = torch.cat([jacobian[:place], torch.zeros(1, 3, dtype=torch.float64), jacobian[place:]])
        assert_parallel(direction(name, padded), expected, 1e-12)


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_tasks", [1, 2, 10])
def test_zero_jacobian_gives_zeros(name, dtype, num_tasks):
    assert torch.equal(direction(name, torch.zeros(num_tasks, 5, dtype=dtype)), torch.zeros(5, dtype=dtype))


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ALL)
def test_finite_jacobian_gives_a_finite_direction_of_its_dtype_and_device(name, dtype, case):
    jacobian = ALL[case].to(dtype)
    found = direction(name, jacobian)
    assert found.shape == jacobian.shape[1:]
    assert found.dtype == dtype
    assert found.device == jacobian.device
    assert found.isfinite().all()


@every_method
@profile
@given(data=st.data())
def test_any_finite_jacobian_gives_a_finite_direction(name, data):
    num_tasks = data.draw(st.sampled_from([1, 2, 3, 10]))
    num_params = data.draw(st.integers(1, 4))
    entry = st.floats(-1e12, 1e12, allow_nan=False) | st.sampled_from([0.0, 1.0, -1.0, 1e-12, 1e-200])
    values = data.draw(st.lists(entry, min_size=num_tasks * num_params, max_size=num_tasks * num_params))
    jacobian = torch.tensor(values, dtype=torch.float64).reshape(num_tasks, num_params)
    assert direction(name, jacobian).isfinite().all()


@pytest.mark.parametrize("name", [name for name in names() if not draws_random_numbers(name)])
@pytest.mark.parametrize("case", FULL_RANK)
def test_order_of_the_tasks_does_not_matter(name, case):
    jacobian = FULL_RANK[case]
    permutation = torch.randperm(len(jacobian), generator=torch.Generator().manual_seed(1))
    expected = direction(name, jacobian)
    assert (direction(name, jacobian[permutation]) - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.parametrize("name", [name for name in names() if draws_random_numbers(name)])
def test_order_of_the_tasks_does_not_matter_on_average_to_random_methods(name):
    # 400 draws each; the means may differ by 5 standard errors of their difference. All seeds are fixed.
    jacobian = gaussian(4, 3, seed=3)
    num_draws = 400
    plain = torch.stack([direction(name, jacobian, seed) for seed in range(num_draws)])
    permuted = torch.stack([direction(name, jacobian[[2, 0, 3, 1]], 1000 + seed) for seed in range(num_draws)])
    error = ((plain.var(0) + permuted.var(0)) / num_draws).sqrt()
    assert plain.var(0).max() > 0
    assert ((plain.mean(0) - permuted.mean(0)).abs() <= 5 * error + 1e-12).all()


@gramian_methods
@pytest.mark.parametrize("case", FULL_RANK)
def test_rotating_the_parameters_rotates_the_direction(name, case):
    jacobian = FULL_RANK[case]
    Q = orthogonal(jacobian.shape[1])
    expected = direction(name, jacobian) @ Q
    assert (direction(name, jacobian @ Q) - expected).norm() <= 1e-8 * expected.norm()


@gramian_methods
@pytest.mark.parametrize("case", [case for case in ALL if case != "all zero"])
def test_direction_lies_in_the_span_of_the_gradients(name, case):
    jacobian = ALL[case]
    found = direction(name, jacobian)
    # The row space from the unit rows, so that short gradients span their share of it.
    unit = torch.nn.functional.normalize(jacobian, dim=1)
    _, singular_values, rows = torch.linalg.svd(unit, full_matrices=False)
    rows = rows[singular_values > 1e-12 * singular_values[0]]
    outside = found - (found @ rows.T) @ rows
    # Some methods choose the length of the direction themselves, whatever that of the gradients.
    assert outside.norm() <= 1e-9 * max(jacobian.norm(dim=1).max(), found.norm())


@every_method
@pytest.mark.parametrize("scale", [2.0**-30, 2.0**10, 1e-4, 1e4])
@pytest.mark.parametrize("case", FULL_RANK)
def test_scaling_all_gradients_does_not_turn_the_direction(name, scale, case):
    jacobian = FULL_RANK[case]
    assert_parallel(direction(name, scale * jacobian), direction(name, jacobian))


@every_method
def test_parameters_without_gradient_get_none(name):
    jacobian = gaussian(3, 6)
    jacobian[:, [1, 4]] = 0
    assert torch.equal(direction(name, jacobian)[[1, 4]], torch.zeros(2, dtype=torch.float64))


@every_method
def test_jacobian_is_not_written_to(name):
    jacobian = gaussian(3, 6)
    before = jacobian.clone()
    direction(name, jacobian)
    assert torch.equal(jacobian, before)


@every_method
def test_same_seed_gives_the_same_direction_and_leaves_the_global_stream_alone(name):
    jacobian = gaussian(6, 3)
    before = torch.get_rng_state()
    assert torch.equal(direction(name, jacobian, seed=5), direction(name, jacobian, seed=5))
    assert torch.equal(torch.get_rng_state(), before)


@every_method
def test_without_a_generator_a_fresh_object_repeats_itself(name):
    jacobian = gaussian(6, 3)
    losses = torch.ones(6, dtype=torch.float64)
    first, second = make(name), make(name)
    assert all(torch.equal(first(jacobian, losses), second(jacobian, losses)) for _ in range(3))


@every_method
def test_state_continues_in_a_fresh_object(name):
    used = make(name)
    for seed in range(3):
        direction(used, gaussian(4, 6, seed), seed)
    fresh = make(name)
    fresh.setup(4, [torch.Size([6])], torch.device("cpu"))
    fresh.load_state_dict(used.state_dict(), strict=True)
    last = gaussian(4, 6, 9)
    assert torch.equal(direction(fresh, last), direction(used, last))


@every_method
def test_two_objects_share_no_state(name):
    critic, actor = make(name), make(name)
    for aggregator in (critic, actor):
        aggregator.setup(4, [torch.Size([6])], torch.device("cpu"))
    before = {key: value.clone() for key, value in actor.state_dict().items()}
    for seed in range(3):
        direction(critic, gaussian(4, 6, seed), seed)
    assert all(torch.equal(actor.state_dict()[key], value) for key, value in before.items())
    storages = [{value.data_ptr() for value in method.state_dict().values()} for method in (critic, actor)]
    assert storages[0].isdisjoint(storages[1])


@pytest.mark.filterwarnings("ignore:.*forgets what it has learned")
@every_method
def test_one_object_follows_a_change_in_the_number_of_tasks(name):
    aggregator = make(name)
    for num_tasks in (2, 5, 3):
        jacobian = gaussian(num_tasks, 4)
        assert torch.equal(direction(aggregator, jacobian), direction(name, jacobian))


@every_method
@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 3, 4), ()])
def test_jacobian_that_is_no_matrix_is_refused(name, shape):
    # Unchecked call: the shape checker of the tests would speak first.
    with pytest.raises(ValueError, match="jacobian"):
        inspect.unwrap(Aggregator.forward)(make(name), torch.zeros(shape))


@weighted_methods
@pytest.mark.parametrize("weights", [(1.0, -0.1), (0.0, 0.0), (), (math.nan, 1.0), (math.inf, 1.0)])
def test_impossible_task_weights_are_refused_at_construction(name, weights):
    with pytest.raises(ValueError, match="weights"):
        make(name, weights=weights)


@weighted_methods
def test_wrong_number_of_task_weights_is_refused_at_setup(name):
    aggregator = make(name, weights=(1.0, 2.0))
    with pytest.raises(ValueError, match=r"3 tasks, 2 weights"):
        aggregator.setup(3, [torch.Size([6])], torch.device("cpu"))


def test_traits_of_known_methods():
    # Tests of every method leave out, by these, what a method does not claim to keep.
    assert [name for name in ("mean", "aligned", "pcgrad", "rlw", "graddrop") if draws_random_numbers(name)] == [
        *("pcgrad", "rlw", "graddrop")
    ]
    assert [name for name in ("mean", "aligned", "pcgrad", "famo", "moco") if learns(name)] == ["famo", "moco"]
    assert [name for name in ("mean", "famo", "moco", "imtl_l") if repeats_itself(name)] == ["mean", "famo"]
    assert [name for name in ("mean", "sum", "aligned", "pcgrad", "famo") if not is_identity_for_one_task(name)] == []
    assert [name for name in ("mean", "aligned", "graddrop", "moco") if weighs_rows(name)] == ["mean", "aligned"]


def test_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'alligned'.*'aligned'.*mean"):
        make("alligned")


def test_unknown_option_is_refused():
    with pytest.raises(TypeError, match="colour"):
        make("mean", colour="red")


@pytest.mark.parametrize("name", [name for name in names() if not make(name).observes])
def test_method_that_does_not_look_again_ignores_the_losses_after_the_step(name):
    aggregator = make(name)
    direction(aggregator, gaussian(4, 6))
    before = {key: value.clone() for key, value in aggregator.state_dict().items()}
    aggregator.observe(torch.rand(4, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(aggregator.state_dict()[key], value) for key, value in before.items())
