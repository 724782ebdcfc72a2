"""The problems between the tasks are solved: optimality conditions and values by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import cagrad, dualproj, make, solvers
from mtrl.aggregators.solvers import (
    clip_weights,
    guess_positive,
    interior_point,
    minimize_quadratic,
    nearest_point,
    newton_step,
    solve_cosines,
    unit_system,
)
from mtrl.aggregators.system import gramian
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK, gaussian
from tests.aggregators.strategies import few, jacobians


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_unit_system_by_hand():
    # (3, 4), (0, 0), (0, -2): lengths 5, 0, 2; cosine of the first and the last -8 / 10.
    cosines, norms, is_nonzero = unit_system(gramian((torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]]),)))
    assert torch.equal(norms, tensor(5, 1, 2))
    assert torch.equal(is_nonzero, torch.tensor([True, False, True]))
    assert torch.allclose(cosines, torch.tensor([[1.0, 0.0, -0.8], [0.0, 1.0, 0.0], [-0.8, 0.0, 1.0]]).double())


def test_row_too_short_for_float32_weights_counts_as_zero():
    # Its square is 1e-60: a weight that makes it count would be 1e30, times what the method multiplies it with.
    system = unit_system(torch.tensor([[1e-60, 1e-30], [1e-30, 1.0]], dtype=torch.float64))
    assert system.is_nonzero.tolist() == [False, True]
    assert torch.equal(system.cosines, torch.eye(2).double())


def test_quadratic_by_hand():
    # min x^2/2 + y^2/2 + xy/2 - x + y: y = 0 binds (slope 1 + x/2 > 0), x = 1.
    Q = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    assert torch.allclose(minimize_quadratic(Q, tensor(-1, 1)), tensor(1, 0), atol=1e-13)


def test_quadratics_in_a_batch_are_those_alone():
    Q = gramian((gaussian(6, 4),)) / 4 + 1e-3 * torch.eye(6)
    slopes = gaussian(5, 6, seed=1)
    together = minimize_quadratic(Q, slopes)
    for slope, found in zip(slopes, together, strict=True):
        assert torch.allclose(found, minimize_quadratic(Q, slope), atol=1e-11)


def test_guesses_by_hand():
    # The same problem. First guess: both positive, x = (2, -2): the second leaves, x = (1, 0) with slope 3/2 there.
    Q = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    guesses = []

    def solve(is_positive):
        guesses.append(is_positive.tolist())
        x = tensor(2, -2) if is_positive[1] else tensor(1, 0)
        return x, Q @ x + tensor(-1, 1)

    x, is_found = guess_positive(solve, torch.tensor([True, True]))
    assert guesses == [[True, True], [True, False]]
    assert x.tolist() == [1, 0]
    assert is_found


def test_guesses_that_do_not_solve_their_system_are_no_solution():
    def solve(is_positive):
        return tensor(1, 0), tensor(1e-6, 1)  # the slope where x is positive has to be zero

    assert not guess_positive(solve, torch.tensor([True, False]))[1]


def test_guesses_that_never_end_are_no_solution():
    def solve(is_positive):
        return torch.where(is_positive, -1.0, 0.0).double(), torch.where(is_positive, 0.0, -1.0).double()

    assert not guess_positive(solve, torch.tensor([True, False]))[1]


@pytest.mark.parametrize("guesses", [0, 20])
@pytest.mark.parametrize("case", ["ten similar", "ten, condition number 100"])
def test_guesses_and_interior_points_find_the_same(monkeypatch, guesses, case):
    # Without corrections the first guess is right for some of the slopes, and interior points find the others.
    cosines = unit_system(gramian((FULL_RANK[case],))).cosines
    slopes = gaussian(20, 10, seed=4) - 0.5
    monkeypatch.setattr(solvers, "_GUESSES", guesses)
    expected = interior_point(cosines, slopes)
    assert (minimize_quadratic(cosines, slopes) - expected).abs().max() <= 1e-9 * expected.abs().max()


@few
@given(jacobian=jacobians(decades=(0,)), seed=st.integers(0, 100))
def test_quadratic_meets_its_optimality_conditions(jacobian, seed):
    # x >= 0, z = Q x + slope >= 0, and one of them zero in each coordinate: max |min(x, z)| = 0.
    cosines = unit_system(gramian((jacobian,))).cosines
    slope = cosines @ gaussian(1, len(jacobian), seed)[0]  # in the range of the matrix, so that the minimum exists
    x = minimize_quadratic(cosines, slope)
    assert torch.minimum(x, cosines @ x + slope).abs().max() <= 1e-10


@few
@given(jacobian=jacobians())
def test_nearest_point_has_no_shorter_neighbour(jacobian):
    # The least-norm point d of a convex hull: <g_i, d> >= ||d||^2 for every vertex. Relative to the shortest one, whose
    # length bounds ||d||.
    norms = jacobian.norm(dim=1)
    is_vertex = norms > 0
    weights = nearest_point(gramian((jacobian,)), is_vertex)
    direction = weights @ jacobian
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert (weights[~is_vertex] == 0).all()
    shortest = norms[is_vertex].min()
    projections = (jacobian[is_vertex] / norms[is_vertex, None]) @ (direction / shortest)
    assert (projections - (direction / shortest).square().sum() * shortest / norms[is_vertex]).min() >= -1e-9


def test_nearest_point_without_vertices_has_no_weights():
    assert torch.equal(nearest_point(torch.eye(3).double(), torch.zeros(3, dtype=torch.bool)), tensor(0, 0, 0))


@pytest.mark.parametrize("jacobian", [FULL_RANK["ten similar"], DEGENERATE["duplicated rows"]], ids=["full", "double"])
def test_least_squares_solution_is_the_pseudo_inverse(jacobian):
    cosines = unit_system(gramian((jacobian,))).cosines
    right = gaussian(1, len(jacobian))[0]
    expected = torch.linalg.pinv(cosines, rtol=1e-10) @ right
    assert torch.allclose(solve_cosines(cosines, right), expected, rtol=1e-9, atol=1e-9)


def test_newton_finds_the_minimum_by_hand_from_far_off():
    # y - log y has its minimum at 1; a full step from 1e-6 doubles y, one from 1e6 would leave the domain.
    for start in (1e-6, 1e6):
        y, decrement = tensor(start), tensor(1.0)
        for _ in range(45):
            y, decrement = newton_step(y, lambda y: 1 - 1 / y, torch.diag(y**-2))
        assert torch.allclose(y, tensor(1.0), rtol=1e-14)
        assert decrement <= 1e-28


def test_newton_stands_still_where_the_curvature_is_none():
    y, decrement = newton_step(tensor(1.0, 2.0), lambda y: y, torch.zeros(2, 2).double())
    assert torch.equal(y, tensor(1.0, 2.0))
    assert decrement == 0


def test_weights_are_clipped_to_the_longest_direction():
    # Rows (3, 0), (0, 4), weights 1: length 5. Clipped to 1: weights 1 / 5. Clipped to 6, or not at all: as they are.
    products = torch.diag(tensor(9, 16))
    assert torch.allclose(clip_weights(tensor(1, 1), products, 1.0), tensor(0.2, 0.2), rtol=1e-14)
    assert torch.equal(clip_weights(tensor(1, 1), products, 6.0), tensor(1, 1))
    assert torch.equal(clip_weights(tensor(1, 1), products, None), tensor(1, 1))


@pytest.mark.parametrize("name", ["cagrad", "mgda", "sdmgrad", "upgrad"])
@pytest.mark.parametrize("case", ["ten similar", "duplicated rows", "opposite rows", "zero row", "all zero", "huge"])
def test_methods_that_guess_nothing_find_the_same(monkeypatch, name, case):
    jacobian = (FULL_RANK | DEGENERATE)[case]
    expected = make(name)(jacobian)
    monkeypatch.setattr(cagrad, "ball_step", cagrad.newton_ball_step)
    for module in (dualproj, solvers):
        monkeypatch.setattr(module, "minimize_quadratic", interior_point)
    assert (make(name)(jacobian) - expected).norm() <= 1e-8 * max(jacobian.norm(), 1)
