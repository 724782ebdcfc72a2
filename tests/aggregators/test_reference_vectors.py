"""The published codes' results on fixed Jacobians are reproduced (tests/data/README.md)."""

import itertools

import pytest
import torch

from mtrl.aggregators import make
from mtrl.aggregators.pcgrad import project
from mtrl.aggregators.system import gramian
from tests.aggregators.vectors import Vector, assert_close, load


def _ids(vector: Vector) -> str:
    return vector.name


def _solved(file: str) -> list[Vector]:
    """Return the vectors with one right answer.

    In `stationary_T3_P3` at full precision it depends on rounding whether the last eigenvalue counts as zero; see
    test_aligned_is_negligible_where_the_weighted_gradients_sum_to_zero.
    """
    solved = [vector for vector in load(file) if vector.status == "ok"]
    eps = torch.finfo(torch.float64).eps
    return [v for v in solved if v.case != "stationary_T3_P3" or v.hyperparameters.get("rank_eps") != eps]


def _rtol(vector: Vector) -> float:
    """Widen the stated tolerance where forming the Gramian in float64 costs more digits than it grants.

    Rounding moves every eigenvalue by about eps lambda_max, so the smallest kept one has lost lambda_max / lambda_min
    of its relative precision. Only the `scaled6` Jacobians (12 decades between the eigenvalues and more) need this.
    """
    if not vector.case.startswith("scaled6"):
        return vector.rtol
    eigenvalues = torch.linalg.eigvalsh(gramian((vector.jacobian,)))
    tolerance = eigenvalues[-1] * len(eigenvalues) * vector.hyperparameters["rank_eps"]
    kept = eigenvalues[eigenvalues > tolerance]
    return vector.rtol + 10 * torch.finfo(torch.float64).eps * float(kept[-1] / kept[0])


@pytest.mark.parametrize("vector", _solved("mean"), ids=_ids)
def test_mean_equals_torchjd(vector):
    direction = make("mean")(vector.jacobian)
    assert_close(direction, vector.gradient, rtol=vector.rtol, atol=vector.atol)


@pytest.mark.parametrize("vector", _solved("aligned_mtl"), ids=_ids)
def test_aligned_with_unit_weights_equals_the_official_sum_of_aligned_rows(vector):
    num_tasks = len(vector.jacobian)
    aligned = make(
        "aligned",
        scale_mode=vector.hyperparameters["scale_mode"],
        rank_eps=vector.hyperparameters["rank_eps"],
        weights=(1.0,) * num_tasks,
    )
    assert_close(aligned(vector.jacobian), vector.gradient, rtol=_rtol(vector), atol=vector.atol)


@pytest.mark.parametrize("vector", _solved("aligned_mtl"), ids=_ids)
def test_aligned_by_default_is_the_official_sum_divided_by_the_number_of_tasks(vector):
    aligned = make(
        "aligned", scale_mode=vector.hyperparameters["scale_mode"], rank_eps=vector.hyperparameters["rank_eps"]
    )
    expected = vector.gradient / len(vector.jacobian)
    assert_close(aligned(vector.jacobian), expected, rtol=_rtol(vector), atol=vector.atol)


@pytest.mark.parametrize("vector", _solved("aligned_mtl_pref"), ids=_ids)
def test_aligned_with_preference_equals_torchjd(vector):
    preference = vector.hyperparameters["preference"]
    assert preference in {"1/T each", "case preference"}
    weights = None if preference == "1/T each" else tuple(vector.preference.tolist())
    aligned = make("aligned", scale_mode=vector.hyperparameters["scale_mode"], weights=weights)
    assert_close(aligned(vector.jacobian), vector.gradient, rtol=_rtol(vector), atol=vector.atol)


@pytest.mark.parametrize("scale_mode", ["min", "median", "rmse"])
@pytest.mark.parametrize("case", ["stationary_T3_P3", "opposite_T2_P3"])
def test_aligned_is_negligible_where_the_weighted_gradients_sum_to_zero(case, scale_mode):
    # These rows have J^T w = 0 for one w > 0, so that d = s J^T G^-1/2 w is zero but for rounding. Their Gramian has
    # an eigenvalue that is rounding noise: it may count as zero or not (then `min` scales by its root, ~1e-8).
    jacobian = next(vector.jacobian for vector in load("aligned_mtl") if vector.case == case)
    weights = torch.linalg.svd(jacobian.T)[2][-1].abs()
    assert (weights @ jacobian).norm() <= 1e-14
    if scale_mode == "min":
        direction = make("aligned", weights=tuple(weights.tolist()))(jacobian)
    else:
        # The other lengths do not shrink with the noise, so it has to be cut off.
        direction = make("aligned", weights=tuple(weights.tolist()), scale_mode=scale_mode, rank_eps=1e-12)(jacobian)
    assert direction.norm() <= 1e-6 * jacobian.norm(dim=1).max()


def test_aligned_returns_zeros_where_the_official_code_fails():
    failed = [vector for vector in load("aligned_mtl") if vector.status != "ok"]
    assert {vector.case for vector in failed} == {"allzero_T3_P3"}
    for vector in failed:
        assert torch.equal(make("aligned")(vector.jacobian), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("vector", [v for v in load("pcgrad") if v.orders is not None], ids=_ids)
def test_pcgrad_in_given_orders_equals_the_sum_of_torchjd(vector):
    # orders[i] lists every task once; task i skips itself.
    num_tasks = len(vector.jacobian)
    orders = [[other for other in order if other != task] for task, order in enumerate(vector.orders)]
    orders = torch.tensor(orders, dtype=torch.int64).reshape(num_tasks, num_tasks - 1)
    coefficients = project(gramian((vector.jacobian,)), orders)
    # The official code sums the projected gradients, `PCGrad` takes the mean of the same rows.
    assert_close(coefficients.sum(0) @ vector.jacobian, vector.gradient, rtol=vector.rtol, atol=vector.atol)
    assert_close(coefficients.sum(0), vector.weights, rtol=vector.rtol, atol=vector.atol)


@pytest.mark.parametrize("vector", [v for v in load("pcgrad") if v.orders is None], ids=_ids)
def test_pcgrad_averaged_over_all_orders_equals_the_expectation(vector):
    num_tasks = len(vector.jacobian)
    products = gramian((vector.jacobian,))
    # Row i of every table is the k-th permutation of the others: over k each row sees each of its orders equally often.
    per_task = [
        list(itertools.permutations([other for other in range(num_tasks) if other != task]))
        for task in range(num_tasks)
    ]
    tables = [torch.tensor(orders, dtype=torch.int64).reshape(num_tasks, -1) for orders in zip(*per_task, strict=True)]
    mean = torch.stack([project(products, orders).sum(0) for orders in tables]).mean(0)
    assert_close(mean @ vector.jacobian, vector.gradient, rtol=vector.rtol, atol=vector.atol)


@pytest.mark.parametrize("vector", [v for v in load("pcgrad") if len(v.jacobian) <= 2 and v.orders], ids=_ids)
def test_pcgrad_of_two_tasks_is_half_the_official_sum_whatever_the_order(vector):
    num_tasks = len(vector.jacobian)
    direction = make("pcgrad")(vector.jacobian)
    assert_close(direction, vector.gradient / num_tasks, rtol=vector.rtol, atol=vector.atol)
