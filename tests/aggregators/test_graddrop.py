"""GradDrop: values by hand, and what dropping one sign guarantees (Chen et al. 2020)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.graddrop import keep_one_sign
from mtrl.aggregators.system import GradientSystem
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK, gaussian, orthogonal

ALL = {**FULL_RANK, **DEGENERATE}
profile = settings(max_examples=25, derandomize=True, deadline=None, database=None)


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def direction(jacobian: Tensor, seed: int = 0, **options) -> Tensor:
    return make("graddrop", **options)(jacobian, generator=torch.Generator().manual_seed(seed))


def test_drop_by_hand():
    # Positive shares: 3 / 4, 0, 1 / 2. The first draw is below it, the third above.
    jacobian = tensor([3.0, -1.0, 2.0], [-1.0, -2.0, -2.0])
    uniforms = torch.tensor([0.7, 0.1, 0.6], dtype=torch.float64)
    # What is left: (3, -1, 0) and (0, -2, -2).
    assert torch.equal(keep_one_sign(jacobian, uniforms, torch.zeros(2).double()), tensor([3.0, -3.0, -2.0])[0])
    # The first task keeps half, the second a quarter of what it would lose.
    leaks = torch.tensor([0.5, 0.25], dtype=torch.float64)
    # (3, -1, 1) and (-1/4, -2, -2).
    assert torch.equal(keep_one_sign(jacobian, uniforms, leaks), tensor([2.75, -3.0, -1.0])[0])


def test_draw_equal_to_the_positive_share_keeps_the_negative_sign():
    # TorchJD drops both.
    uniforms = torch.tensor([0.5], dtype=torch.float64)
    assert torch.equal(keep_one_sign(tensor([1.0], [-1.0]), uniforms, torch.zeros(2).double()), tensor([-1.0])[0])


def test_direction_is_the_mean_over_tasks_of_what_the_draws_leave():
    jacobian = gaussian(4, 9)
    uniforms = torch.rand(9, generator=torch.Generator().manual_seed(3))
    expected = keep_one_sign(jacobian, uniforms, torch.zeros(4).double()) / 4
    assert torch.equal(direction(jacobian, seed=3), expected)


@pytest.mark.parametrize("case", ALL)
def test_each_parameter_gets_the_mean_of_one_sign(case):
    jacobian = ALL[case]
    found = len(jacobian) * direction(jacobian)
    positive, negative = jacobian.clamp(min=0).sum(0), jacobian.clamp(max=0).sum(0)
    scale = jacobian.abs().sum(0)
    assert ((found - positive).abs().minimum((found - negative).abs()) <= 1e-13 * scale).all()


@profile
@given(data=st.data())
def test_direction_conflicts_with_no_task_in_a_parameter_they_agree_on(data):
    num_tasks = data.draw(st.sampled_from([1, 2, 50]))
    exponents = data.draw(st.lists(st.floats(-6, 6), min_size=num_tasks, max_size=num_tasks))
    jacobian = gaussian(num_tasks, 8).abs() * torch.tensor([10**e for e in exponents]).double()[:, None]
    jacobian[:, ::2] *= -1
    assert torch.allclose(direction(jacobian), jacobian.mean(0), rtol=1e-12)


def test_signs_are_drawn_with_their_shares():
    # Positive share 3 / 4; the mean of the kept sum is 3/4 * 3 - 1/4 * 1 = 2, halved; 5 standard errors of 2000 draws.
    jacobian = tensor([3.0], [-1.0]).repeat(1, 2000)
    found = direction(jacobian)
    assert set(found.tolist()) == {1.5, -0.5}
    assert abs(float(found.mean()) - 1) <= 5 * float(found.std()) / 2000**0.5


def test_duplicated_task_counts_as_one_with_a_gradient_twice_as_long():
    jacobian = gaussian(3, 20)
    doubled = jacobian * torch.tensor([1.0, 2.0, 1.0]).double()[:, None]
    assert torch.allclose(4 * direction(jacobian[[0, 1, 1, 2]]), 3 * direction(doubled), rtol=1e-12)


def test_full_leak_is_the_mean():
    jacobian = gaussian(3, 20)
    assert torch.allclose(direction(jacobian, leaks=(1.0, 1.0, 1.0)), jacobian.mean(0), rtol=1e-13, atol=1e-16)


def test_direction_follows_the_axes_of_the_parameters():
    # Why the contract's rotation test is not for methods that look at rows.
    jacobian, Q = gaussian(3, 6), orthogonal(6)
    assert (direction(jacobian @ Q) - direction(jacobian) @ Q).norm() > 0.1 * direction(jacobian).norm()


def test_every_leaf_is_drawn_anew():
    jacobian = tensor([3.0], [-1.0]).repeat(1, 200)
    aggregator = make("graddrop")
    aggregator.setup(2, [torch.Size([200]), torch.Size([200])], torch.device("cpu"))
    system = GradientSystem(num_tasks=2, rows=(jacobian, jacobian), generator=torch.Generator().manual_seed(0))
    leaves = aggregator.aggregate(system).direction
    assert leaves is not None
    assert not torch.equal(*leaves)


def test_number_of_leaks_must_be_that_of_the_tasks():
    with pytest.raises(ValueError, match=r"leaks.*3 tasks, 2 leaks"):
        make("graddrop", leaks=(0.5, 0.5))(gaussian(3, 5))
