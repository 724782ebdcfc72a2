"""Aligned-MTL: values by hand, and what the paper's algorithm guarantees (Senushkin et al. 2023)."""

import math

import pytest
import torch
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.aligned import balance_matrix
from mtrl.aggregators.system import condition_number, gramian
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK, gaussian, orthogonal, with_condition_number

MODES = ("min", "median", "rmse")
full_rank = pytest.mark.parametrize("case", FULL_RANK)
modes = pytest.mark.parametrize("scale_mode", MODES)


def weights_for(num_tasks: int, seed: int = 0) -> Tensor:
    return torch.rand(num_tasks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


def aligned(weights: Tensor | None = None, **options):
    return make("aligned", weights=None if weights is None else tuple(weights.tolist()), **options)


def symmetric_root(matrix: Tensor) -> Tensor:
    eigenvalues, V = torch.linalg.eigh(matrix)
    return V @ torch.diag(eigenvalues.clamp(min=0).sqrt()) @ V.T


# ------------------------------------------------------------------------------------------------- values by hand


@pytest.mark.parametrize(("scale_mode", "length"), [("min", 2.0), ("median", 3.0), ("rmse", math.sqrt(38 / 3))])
def test_orthogonal_gradients_are_given_one_length(scale_mode, length):
    # G = diag(4, 25, 9), singular values 2, 5, 3. s: min 2, median 3, rmse sqrt((4 + 25 + 9) / 3) = sqrt(38 / 3).
    # B = s diag(1/2, 1/5, 1/3), B J = s I, d = s (w1, w2, w3).
    jacobian = torch.diag(torch.tensor([2.0, 5.0, 3.0], dtype=torch.float64))
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert torch.allclose(aligned(weights, scale_mode=scale_mode)(jacobian), length * weights, rtol=1e-14)


def test_median_of_an_even_number_is_the_lower_one():
    # Squared singular values 1, 4, 9, 16: lower median 4, s = 2, d = 2 * (1/4, 1/4, 1/4, 1/4).
    jacobian = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    assert torch.allclose(aligned(scale_mode="median")(jacobian), torch.full((4,), 0.5).double(), rtol=1e-14)


def test_two_gradients_at_an_angle():
    # g1 = (1, 0), g2 = (3/5, 4/5): G = [[1, 3/5], [3/5, 1]], eigenvalues 8/5 and 2/5 with (1, 1) and (1, -1) / sqrt 2.
    # s^2 = 2/5, B = V diag(sqrt(2/5 / (8/5)), 1) V^T = V diag(1/2, 1) V^T = [[3/4, -1/4], [-1/4, 3/4]].
    # B w with w = (1/2, 1/2): (1/4, 1/4). d = 1/4 (1, 0) + 1/4 (3/5, 4/5) = (2/5, 1/5).
    jacobian = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    expected_balance = torch.tensor([[0.75, -0.25], [-0.25, 0.75]], dtype=torch.float64)
    assert torch.allclose(balance_matrix(gramian((jacobian,))), expected_balance, atol=1e-14)
    assert torch.allclose(aligned()(jacobian), torch.tensor([0.4, 0.2]).double(), atol=1e-14)


def test_default_weights_are_one_over_the_number_of_tasks():
    jacobian = gaussian(4, 6)
    assert torch.equal(aligned()(jacobian), aligned(torch.full((4,), 0.25))(jacobian))


def test_preference_for_one_task_scales_its_aligned_gradient():
    # Orthogonal rows of length 2 and 5, w = (0.9, 0.1): d = 2 (0.9, 0.1) = (1.8, 0.2), where mean gives (1.8, 0.5).
    jacobian = torch.diag(torch.tensor([2.0, 5.0], dtype=torch.float64))
    weights = torch.tensor([0.9, 0.1])
    assert torch.allclose(aligned(weights)(jacobian), torch.tensor([1.8, 0.2]).double(), rtol=1e-6)


def test_descent_ends_where_the_preferred_sum_of_losses_is_least():
    # L1 = (x - 1)^2 + y^2, L2 = 10 (x + 1)^2 + 10 (y - 1)^2. The minimum of 0.8 L1 + 0.02 L2 is where
    # 0.8 (x - 1) + 0.2 (x + 1) = 0 and 0.8 y + 0.2 (y - 1) = 0: (0.6, 0.2).
    aggregator = aligned(torch.tensor([0.8, 0.02]))
    point = torch.tensor([-0.5, -0.7], dtype=torch.float64)
    for _ in range(500):
        jacobian = torch.stack([2 * (point - torch.tensor([1.0, 0.0])), 20 * (point - torch.tensor([-1.0, 1.0]))])
        point = point - 0.2 * aggregator(jacobian)
    assert torch.allclose(point, torch.tensor([0.6, 0.2], dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize(
    ("start", "weights", "expected"),
    [((-0.5, -0.7), (0.2, 0.08), (-0.6, 0.8)), ((2.0, 1.5), (0.8, 0.02), (0.6, 0.2))],
)
def test_noisy_descent_by_adam_passes_pareto_stationary_points_and_ends_where_the_weights_say(start, weights, expected):
    # The losses above in 20 dimensions, each gradient with noise of its own; the mean of the last half of the points.
    centres = torch.zeros(2, 20, dtype=torch.float64)
    centres[0, 0], centres[1, 0], centres[1, 1] = 1.0, -1.0, 1.0
    point = torch.zeros(20, dtype=torch.float64)
    point[:2] = torch.tensor(start)
    aggregator, optimizer = aligned(torch.tensor(weights)), torch.optim.Adam([point], lr=5e-3)
    noise = torch.randn(2000, 2, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    visited = torch.zeros_like(point)
    for step in range(2000):
        point.grad = aggregator(torch.tensor([[2.0], [20.0]]) * (point - centres) + noise[step])
        optimizer.step()
        visited += point / 1000 * (step >= 1000)
    assert torch.allclose(visited[:2], torch.tensor(expected, dtype=torch.float64), atol=0.08)


# ----------------------------------------------------------------------------------------- guarantees of the paper


@full_rank
@modes
def test_aligned_gradients_are_orthogonal_and_equally_long(case, scale_mode):
    jacobian = FULL_RANK[case]
    rows = balance_matrix(gramian((jacobian,)), scale_mode) @ jacobian
    squared = torch.linalg.svdvals(jacobian).square()
    lengths = {"min": squared.min(), "median": squared.median(), "rmse": squared.mean()}
    expected = lengths[scale_mode] * torch.eye(len(rows), dtype=torch.float64)
    assert (rows @ rows.T - expected).norm() <= 1e-7 * expected.norm()


@pytest.mark.parametrize("case", ["duplicated rows", "more tasks than parameters", "zero row", "opposite rows"])
def test_aligned_gradients_of_a_dependent_system_are_a_scaled_projection(case):
    # (B J)(B J)^T = s^2 V V^T: divided by s^2 it is symmetric, idempotent and of the Jacobian's rank.
    jacobian = DEGENERATE[case]
    rows = balance_matrix(gramian((jacobian,))) @ jacobian
    products = rows @ rows.T
    projection = products / torch.linalg.matrix_norm(products, 2)
    assert (projection @ projection - projection).norm() <= 1e-9
    assert torch.isclose(projection.trace(), torch.linalg.matrix_rank(jacobian).double(), rtol=1e-9)


@full_rank
def test_length_is_the_smallest_singular_value_times_that_of_the_weights(case):
    jacobian, weights = FULL_RANK[case], weights_for(len(FULL_RANK[case]))
    expected = torch.linalg.svdvals(jacobian)[-1] * weights.norm()
    assert torch.isclose(aligned(weights)(jacobian).norm(), expected, rtol=1e-8)


@pytest.mark.parametrize("case", DEGENERATE)
@modes
def test_length_is_at_most_the_scale_times_that_of_the_weights(case, scale_mode):
    jacobian, weights = DEGENERATE[case], weights_for(len(DEGENERATE[case]))
    eigenvalues = torch.linalg.eigvalsh(gramian((jacobian,))).clamp(min=0)
    kept = eigenvalues[eigenvalues > eigenvalues[-1] * len(eigenvalues) * torch.finfo(torch.float64).eps]
    scale = {"min": torch.min, "median": torch.median, "rmse": torch.mean}[scale_mode](kept).sqrt() if len(kept) else 0
    # 2: rows over twelve decades have lost the relative precision of their smallest eigenvalues, which enter here.
    assert aligned(weights, scale_mode=scale_mode)(jacobian).norm() <= 2 * scale * weights.norm()


@full_rank
@modes
def test_direction_descends_the_weighted_total_loss(case, scale_mode):
    # w^T J d = s w^T G^1/2 w > 0.
    jacobian, weights = FULL_RANK[case], weights_for(len(FULL_RANK[case]))
    found = weights @ jacobian @ aligned(weights, scale_mode=scale_mode)(jacobian)
    squared = torch.linalg.svdvals(jacobian).square()
    scale = {"min": squared.min(), "median": squared.median(), "rmse": squared.mean()}[scale_mode].sqrt()
    assert found > 0
    assert torch.isclose(found, scale * (weights @ symmetric_root(gramian((jacobian,))) @ weights), rtol=1e-6)


@pytest.mark.parametrize("case", DEGENERATE)
@modes
def test_direction_never_ascends_the_weighted_total_loss(case, scale_mode):
    jacobian, weights = DEGENERATE[case], weights_for(len(DEGENERATE[case]))
    total = weights @ jacobian
    direction = aligned(weights, scale_mode=scale_mode)(jacobian)
    assert total @ direction >= -1e-9 * total.norm() * direction.norm()


@full_rank
def test_no_aligned_gradient_points_against_its_original(case):
    # <aligned_i, g_i> = s (G^1/2)_ii.
    jacobian = FULL_RANK[case]
    products = gramian((jacobian,))
    found = (balance_matrix(products) @ products).diagonal()
    expected = torch.linalg.svdvals(jacobian)[-1] * symmetric_root(products).diagonal()
    assert (found > 0).all()
    assert torch.allclose(found, expected, rtol=1e-6)


def test_direction_may_conflict_with_an_original_gradient():
    # G = [[0.04, -0.2], [-0.2, 1.04]]: determinant 0.0416 - 0.04 = 0.0016 with root 0.04, trace 1.08.
    # G^1/2 = (G + 0.04 I) / sqrt(1.08 + 2 * 0.04) = [[0.08, -0.2], [-0.2, 1.08]] / sqrt(1.16).
    # lambda_min = (1.08 - sqrt(1.08^2 - 4 * 0.0016)) / 2, its root s = 0.038518.
    # J d = s G^1/2 (1, 1) = 0.038518 / 1.077033 * (-0.12, 0.88) = (-0.00429, 0.03147): the first entry is negative.
    jacobian = torch.tensor([[0.2, 0.0], [-1.0, 0.2]], dtype=torch.float64)
    progress = jacobian @ aligned(torch.ones(2))(jacobian)
    assert torch.allclose(progress, torch.tensor([-0.00429, 0.03147]).double(), atol=1e-5)


@full_rank
@modes
def test_permuted_tasks_with_permuted_weights_give_the_same_direction(case, scale_mode):
    jacobian, weights = FULL_RANK[case], weights_for(len(FULL_RANK[case]))
    order = torch.randperm(len(jacobian), generator=torch.Generator().manual_seed(2))
    expected = aligned(weights, scale_mode=scale_mode)(jacobian)
    found = aligned(weights[order], scale_mode=scale_mode)(jacobian[order])
    assert (found - expected).norm() <= 1e-9 * expected.norm()


@full_rank
@modes
@pytest.mark.parametrize("scale", [1e-8, 3.0, 1e8])
def test_direction_scales_with_the_gradients(case, scale_mode, scale):
    jacobian = FULL_RANK[case]
    expected = scale * aligned(scale_mode=scale_mode)(jacobian)
    assert (aligned(scale_mode=scale_mode)(scale * jacobian) - expected).norm() <= 1e-8 * expected.norm()


@modes
def test_orthogonal_rows_of_one_length_are_left_alone(scale_mode):
    jacobian = 3 * orthogonal(5)[:3]
    balance = balance_matrix(gramian((jacobian,)), scale_mode)
    assert torch.allclose(balance, torch.eye(3, dtype=torch.float64), atol=1e-12)


def test_scaling_one_task_changes_the_direction():
    # Unlike that of DiBS-MTL and Nash-MTL. Orthogonal rows would only lose their lengths; rows at an angle show it.
    jacobian = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    plain, scaled = aligned()(jacobian), aligned()(jacobian * torch.tensor([[1.0], [10.0]]))
    assert (plain / plain.norm() - scaled / scaled.norm()).norm() > 0.1


# ------------------------------------------------------------------------------------------------- edges, precision


@modes
def test_zero_row_has_weight_exactly_zero_and_does_not_disturb_the_others(scale_mode):
    jacobian, weights = gaussian(3, 8), weights_for(4)
    padded = torch.cat([jacobian[:1], torch.zeros(1, 8).double(), jacobian[1:]])
    balance = balance_matrix(gramian((padded,)), scale_mode)
    assert torch.equal(balance[1], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(balance[:, 1], torch.zeros(4, dtype=torch.float64))
    expected = aligned(weights[[0, 2, 3]], scale_mode=scale_mode)(jacobian)
    found = aligned(weights, scale_mode=scale_mode)(padded)
    assert (found - expected).norm() <= 1e-12 * expected.norm()


def test_one_task_gets_its_weight_times_its_gradient():
    jacobian = gaussian(1, 5)
    assert torch.allclose(aligned(torch.tensor([0.7], dtype=torch.float64))(jacobian), 0.7 * jacobian[0], rtol=1e-14)


@modes
def test_duplicated_row_gives_that_row(scale_mode):
    # Rows (g, g): G = |g|^2 [[1, 1], [1, 1]], one eigenvalue 2 |g|^2 with v = (1, 1) / sqrt 2; B = v v^T.
    # For w = (1/2, 1/2): B w = (1/2, 1/2), d = g.
    row = gaussian(1, 5)
    assert torch.allclose(aligned(scale_mode=scale_mode)(row.expand(2, 5)), row[0], rtol=1e-12)


def test_rank_tolerance_of_the_official_code_drops_short_gradients():
    # Orthogonal rows of length 1 and 1e-4: eigenvalues 1 and 1e-8. Official: 1e-8 < 1 * 2 * 1.2e-7 counts as zero, so
    # that B = diag(1, 0) and d = (1/2, 0). At full precision s = 1e-4 and d = 1e-4 (1/2, 1/2).
    jacobian = torch.diag(torch.tensor([1.0, 1e-4], dtype=torch.float64))
    official = aligned(rank_eps=torch.finfo(torch.float32).eps)(jacobian)
    assert torch.allclose(official, torch.tensor([0.5, 0.0]).double(), atol=1e-14)
    assert torch.allclose(aligned()(jacobian), torch.tensor([0.5e-4, 0.5e-4]).double(), rtol=1e-9)


@pytest.mark.parametrize("factor", [-0.37, 0.37, 1e-3])
def test_what_rounding_leaves_of_a_multiple_is_no_direction(factor):
    # In float32 the second row is no exact multiple: an eigenvalue of 1e-15 of the other is left of the difference.
    row = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    direction = aligned()(torch.stack([row, factor * row]))
    along = (direction @ row) / row.square().sum() * row
    assert (direction - along).norm() < 1e-5 * direction.norm()


@pytest.mark.parametrize("seed", range(3))
def test_float64_gramian_of_a_float32_jacobian_keeps_condition_number_one(seed):
    jacobian = with_condition_number(10, 200, 1000.0, seed).float()
    products = gramian((jacobian,))
    assert products.dtype == torch.float64
    assert condition_number(products) == pytest.approx(1000, rel=1e-3)

    def condition_after(balance: Tensor) -> float:
        singular_values = torch.linalg.svdvals(balance.double() @ jacobian.double())
        return float(singular_values[0] / singular_values[-1])

    assert condition_after(balance_matrix(products)) == pytest.approx(1, abs=1e-8)
    # A float32 Gramian has lost the smallest singular value: cut off by its tolerance, or inaccurate without one.
    lossy = jacobian @ jacobian.T
    assert condition_after(balance_matrix(lossy)) > 1e6
    assert condition_after(balance_matrix(lossy.double())) > 1 + 1e-4
    direction = balance_matrix(products).mean(0) @ jacobian.double()
    lossy_direction = balance_matrix(lossy).double().mean(0) @ jacobian.double()
    assert (lossy_direction - direction).norm() > 0.5 * direction.norm()
    assert (aligned()(jacobian) - direction).norm() < 1e-3 * direction.norm()


@pytest.mark.parametrize("rank_eps", [0.0, -1e-7, 1.0])
def test_impossible_rank_tolerance_is_refused(rank_eps):
    with pytest.raises(ValueError, match="rank_eps"):
        make("aligned", rank_eps=rank_eps)
