"""Gramian, combination, condition number and cosines."""

import pytest
import torch

from mtrl.aggregators import system
from mtrl.aggregators.system import combine, condition_number, cosines, gramian, magnitude_similarity
from tests.aggregators.jacobians import gaussian, with_condition_number


def leaves(num_tasks: int = 3) -> tuple[torch.Tensor, ...]:
    """Return rows for a matrix, a vector and a scalar parameter, in float32 as in training."""
    shapes = [(4, 5), (7,), ()]
    return tuple(
        gaussian(num_tasks, torch.Size(shape).numel(), seed).reshape(num_tasks, *shape).float()
        for seed, shape in enumerate(shapes)
    )


def flat(rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.cat([leaf.reshape(len(leaf), -1) for leaf in rows], dim=1)


def test_gramian_is_the_product_of_the_flattened_rows_in_float64():
    wide = flat(leaves()).double()
    found = gramian(leaves())
    assert found.dtype == torch.float64
    assert torch.allclose(found, wide @ wide.T, rtol=1e-14)


@pytest.mark.parametrize("chunk_elements", [1, 5, 21, 10**6])
def test_gramian_does_not_depend_on_the_chunk_size(monkeypatch, chunk_elements):
    whole = gramian(leaves())
    monkeypatch.setattr(system, "_CHUNK_ELEMENTS", chunk_elements)
    assert torch.allclose(gramian(leaves()), whole, rtol=1e-14)


def test_gramian_by_hand():
    # Rows (1, 2 | 3) and (4, 5 | 6) over two leaves: 1 + 4 + 9 = 14, 4 + 10 + 18 = 32, 16 + 25 + 36 = 77.
    rows = (torch.tensor([[1.0, 2.0], [4.0, 5.0]]), torch.tensor([[3.0], [6.0]]))
    assert torch.equal(gramian(rows), torch.tensor([[14.0, 32.0], [32.0, 77.0]]).double())


def test_combine_is_the_product_with_the_weights_leaf_by_leaf():
    weights = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    found = combine(leaves(), weights)
    assert [leaf.shape for leaf in found] == [(4, 5), (7,), ()]
    assert all(leaf.dtype == torch.float32 for leaf in found)
    assert torch.allclose(torch.cat([leaf.flatten() for leaf in found]), weights.float() @ flat(leaves()), atol=1e-6)


def test_condition_number_by_hand():
    # Rows (3, 0) and (0, 4): singular values 3 and 4.
    assert condition_number(torch.diag(torch.tensor([9.0, 16.0]).double())) == pytest.approx(4 / 3, rel=1e-15)


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e3, 1e5])
def test_condition_number_is_that_of_the_jacobian(condition):
    # The Gramian squares it: at 1e5 its smallest eigenvalue keeps 16 - 10 digits.
    products = gramian((with_condition_number(6, 20, condition),))
    assert condition_number(products) == pytest.approx(condition, rel=1e-4)


def test_condition_number_does_not_depend_on_the_scale():
    jacobian = gaussian(4, 9)
    small, large = (condition_number(gramian((scale * jacobian,))) for scale in (2.0**-60, 2.0**60))
    assert torch.isclose(small, large, rtol=1e-12)


def test_condition_number_of_a_dependent_system_is_its_resolution():
    # 1 / sqrt(T eps) = 1 / sqrt(2 * 2.2e-16) = 4.745e7.
    assert condition_number(torch.ones(2, 2).double()) == pytest.approx(4.745e7, rel=1e-3)


def test_condition_number_of_a_zero_system_is_one():
    assert condition_number(torch.zeros(3, 3).double()) == 1


def test_condition_number_of_a_system_with_nan_is_nan():
    products = torch.eye(3).double()
    products[1, 1] = torch.nan
    assert condition_number(products).isnan()


def test_a_task_without_gradient_does_not_count_in_the_condition():
    jacobian = gaussian(4, 9)
    padded = torch.cat([jacobian[:2], torch.zeros(1, 9).double(), jacobian[2:]])
    assert condition_number(gramian((padded,))) == pytest.approx(
        condition_number(gramian((jacobian,))).item(), rel=1e-12
    )


def test_magnitude_similarity_by_hand():
    # Lengths 1, 3, 0: of the one pair that counts 2 * 3 / (1 + 9).
    rows = (torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.0, 0.0]]),)
    assert magnitude_similarity(gramian(rows)) == pytest.approx(0.6)
    # Lengths 1, 3, 2: 0.6, 2 * 2 / (1 + 4) = 0.8 and 2 * 6 / (9 + 4) = 12 / 13.
    rows = (torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0]]),)
    assert magnitude_similarity(gramian(rows)) == pytest.approx((0.6 + 0.8 + 12 / 13) / 3)
    assert magnitude_similarity(torch.zeros(3, 3).double()) == magnitude_similarity(torch.ones(1, 1).double()) == 1


def test_cosines_by_hand():
    # (1, 0), (3, 4), (0, -2): cosines 3/5, 0, -8/10.
    rows = (torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0]]),)
    expected = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, -0.8], [0.0, -0.8, 1.0]], dtype=torch.float64)
    assert torch.allclose(cosines(gramian(rows)), expected, rtol=1e-14)


def test_cosines_with_a_zero_row_are_zero():
    found = cosines(gramian((torch.tensor([[1.0, 0.0], [0.0, 0.0]]),)))
    assert torch.equal(found, torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double())
    assert torch.equal(cosines(torch.zeros(2, 2).double()), torch.zeros(2, 2).double())
