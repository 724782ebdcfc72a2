"""Jacobi's method, which serves where torch's solver would wait for the device: the same numbers, never NaN."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import eigen, make, names
from mtrl.aggregators.aligned import balance_matrix
from mtrl.aggregators.eigen import eigh, eigvalsh, jacobi
from mtrl.aggregators.solvers import unit_system
from mtrl.aggregators.system import condition_number, gramian
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK, gaussian, with_condition_number
from tests.aggregators.strategies import few, jacobians

SIZES = [1, 2, 3, 5, 8, 10, 25, 49, 50]


def assert_solved(matrix: Tensor, tolerance: float = 1e-14) -> None:
    """Assert that all is as accurate as torch's own solver has it, relative to the largest eigenvalue."""
    eigenvalues, V = jacobi(matrix)
    scale = matrix.abs().amax()
    expected = torch.linalg.eigvalsh(matrix / scale)
    largest = expected.abs().amax()
    assert (eigenvalues / scale - expected).abs().amax() <= tolerance * largest
    assert (V.T @ V - torch.eye(len(V)).double()).abs().amax() <= tolerance
    assert ((V * (eigenvalues / scale)) @ V.T - matrix / scale).abs().amax() <= tolerance * largest


def spread(size: int) -> Tensor:
    """Return lengths over twelve decades, in no order."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(1))
    return torch.logspace(-6, 6, size, dtype=torch.float64)[order, None]


HARD = {
    "full rank": lambda size: gramian((gaussian(size, 2 * size),)),
    "rank-deficient": lambda size: gramian((gaussian(size, size // 2 + 1),)),
    "duplicated": lambda size: gramian((gaussian(size, 3 * size)[torch.arange(size) // 2],)),
    "rows over twelve decades": lambda size: gramian((spread(size) * gaussian(size, 2 * size),)),
    "rows over twelve decades, dependent": lambda size: gramian((spread(size) * gaussian(size, size // 2 + 1),)),
    "condition number 1e12": lambda size: gramian((with_condition_number(size, 2 * size, 1e6),)),
    "nearly the same": lambda size: gramian((gaussian(1, 100) + 0.01 * gaussian(size, 100, 1),)),
    "all the same": lambda size: torch.ones(size, size).double(),
    "equal eigenvalues of both signs": lambda size: (torch.ones(size, size) - 2 * torch.eye(size)).double(),
    "indefinite": lambda size: gaussian(size, size) + gaussian(size, size).T,
    "slowest": lambda size: torch.minimum(*torch.meshgrid(2 * [torch.arange(1.0, size + 1).double()], indexing="ij")),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", HARD)
def test_jacobi_solves_what_torch_solves(kind, size):
    assert_solved(HARD[kind](size), 3e-14)


@few
@given(jacobian=jacobians())
def test_jacobi_solves_random_gramians(jacobian):
    assert_solved(gramian((jacobian,)), 3e-14)
    assert_solved(unit_system(gramian((jacobian,))).cosines, 3e-14)


@few
@given(data=st.data())
def test_finite_numbers_never_give_nan(data):
    size = data.draw(st.integers(1, 6))
    entry = st.floats(-1e300, 1e300) | st.sampled_from([0.0, 1.0, 1e-300, 5e-324])
    values = data.draw(st.lists(entry, min_size=size * size, max_size=size * size))
    half = torch.tensor(values, dtype=torch.float64).reshape(size, size).tril()
    eigenvalues, V = jacobi(half + half.tril(-1).T)
    assert not eigenvalues.isnan().any()
    assert (V.T @ V - torch.eye(size).double()).abs().amax() <= 1e-14


def test_two_by_two_by_hand():
    # [[2, 1], [1, 2]]: 1 with (1, -1) / sqrt 2 and 3 with (1, 1) / sqrt 2.
    eigenvalues, V = jacobi(torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
    assert torch.allclose(eigenvalues, torch.tensor([1.0, 3.0]).double(), rtol=1e-14)
    assert torch.allclose(V.abs(), torch.full((2, 2), 0.5**0.5, dtype=torch.float64), rtol=1e-14)
    assert V[:, 0].prod() < 0 < V[:, 1].prod()


@pytest.mark.parametrize("size", [1, 4, 5])
def test_zero_matrix_has_zeros(size):
    eigenvalues, V = jacobi(torch.zeros(size, size).double())
    assert torch.equal(eigenvalues, torch.zeros(size).double())
    assert torch.equal(V.abs().sum(0), torch.ones(size).double())


@pytest.mark.parametrize("half", [1, 2, 3, 5, 25])
def test_every_pair_meets_once_in_a_sweep(half):
    places, met = list(range(2 * half)), []
    for _ in range(2 * half - 1):
        met += [frozenset((places[k], places[k + half])) for k in range(half)]
        places = [places[k] for k in eigen._next_places(half)]
    assert len(met) == len(set(met)) == half * (2 * half - 1)
    assert places == list(range(2 * half))


def test_on_the_cpu_torch_solves():
    matrix = HARD["full rank"](6)
    assert all(torch.equal(*pair) for pair in zip(eigh(matrix), torch.linalg.eigh(matrix), strict=True))
    assert torch.equal(eigvalsh(matrix), torch.linalg.eigvalsh(matrix))


# ------------------------------------------------------------------------------- the methods, as they run elsewhere

GAPPED = {case: jacobian for case, jacobian in (FULL_RANK | DEGENERATE).items() if "decades" not in case}
"""Where no eigenvalue is so near the rank tolerance that rounding decides on it."""


def directions(jacobian: Tensor) -> dict[str, Tensor]:
    losses = torch.linspace(1, 2, len(jacobian)).double()
    return {name: make(name)(jacobian, losses, torch.Generator().manual_seed(0)) for name in names()}


@pytest.fixture
def elsewhere(monkeypatch) -> None:
    """Take the way of every device but the CPU."""
    monkeypatch.setattr(torch.linalg, "eigh", jacobi)
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda matrix: jacobi(matrix)[0])


def test_methods_ask_for_eigenvalues_where_it_can_be_patched(monkeypatch):
    asked = []
    for name in names():
        monkeypatch.setattr(torch.linalg, "eigh", lambda matrix, name=name: (asked.append(name), jacobi(matrix))[1])
        make(name)(gaussian(3, 5), torch.ones(3).double())
    assert {"aligned", "config", "imtl_g"} <= set(asked)


@pytest.mark.parametrize("case", FULL_RANK | DEGENERATE)
def test_all_methods_give_the_same_elsewhere(request, case):
    jacobian = (FULL_RANK | DEGENERATE)[case]
    expected = directions(jacobian)
    request.getfixturevalue("elsewhere")
    for name, found in directions(jacobian).items():
        assert found.isfinite().all(), name
        if case in GAPPED:
            assert (found - expected[name]).norm() <= 1e-9 * max(expected[name].norm(), jacobian.norm()), name


@pytest.mark.parametrize("mode", ["min", "median", "rmse"])
@pytest.mark.parametrize("case", FULL_RANK)
def test_aligned_gradients_have_condition_number_one_elsewhere(elsewhere, mode, case):
    products = gramian((FULL_RANK[case],))
    balance = balance_matrix(products, mode)
    assert condition_number(balance @ products @ balance.T) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e3, 1e5])
def test_condition_number_is_that_of_the_jacobian_elsewhere(elsewhere, condition):
    products = gramian((with_condition_number(6, 20, condition),))
    assert condition_number(products) == pytest.approx(condition, rel=1e-4)
