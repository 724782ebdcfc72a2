"""The published results of the methods that solve a problem between the tasks are reproduced (tests/data/README.md).

Where a file brings a solution of higher accuracy than the published code's (`independent_exact`), that one counts. Ours
differs on purpose in the cases that differences.py lists; each is tested for what it does instead, here or where the
list says.
"""

import json

import pytest
import torch
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.gradvac import turn
from mtrl.aggregators.system import cosines, gramian
from tests.aggregators.builders import BUILD, case_weights, is_one_of, result
from tests.aggregators.differences import DIFFERENT
from tests.aggregators.vectors import DATA, Vector, assert_close, load
from tests.aggregators.weights import weights_of


def select(file: str, *patterns: str) -> list[Vector]:
    found = [vector for vector in load(file) if is_one_of(vector, patterns)]
    assert found, f"{file} has none of {patterns}"
    return found


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def expected(vector: Vector) -> Tensor:
    exact = vector.entry.get("independent_exact")
    found = vector.gradient if exact is None else tensor(exact["gradient"])
    assert found is not None
    return found


def without_zero_rows(jacobian: Tensor) -> Tensor:
    return jacobian[jacobian.norm(dim=1) > 0]


REPRODUCED = [
    (file, vector) for file in BUILD for vector in load(file) if not is_one_of(vector, DIFFERENT.get(file, ()))
]


@pytest.mark.parametrize(("file", "vector"), REPRODUCED, ids=[f"{file}/{vector.name}" for file, vector in REPRODUCED])
def test_published_result_is_reproduced(file, vector):
    found = result(file, vector)
    target = expected(vector)
    # Where gradients cancel the answer is about zero.
    atol = max(vector.atol, 1e-6 * float(vector.jacobian.norm(dim=1).max())) if "mgda" in file else vector.atol
    assert_close(found, target, rtol=vector.rtol, atol=min(atol, 1e-6))


def test_each_file_has_been_reproduced_in_most_cases():
    for file in BUILD:
        assert sum(name == file for name, _ in REPRODUCED) >= 0.6 * len(load(file)), file


@pytest.mark.parametrize("vector", [v for v in load("sdmgrad_mtrl") if v.name != "well_T10_P200"], ids=lambda v: v.name)
def test_sdmgrad_continues_from_the_last_weights(vector):
    aggregator = BUILD["sdmgrad_mtrl"](vector)
    aggregator(vector.jacobian)
    found = aggregator(vector.jacobian)
    second = vector.entry["second_call"]
    assert_close(found, tensor(second["gradient"]), rtol=vector.rtol, atol=vector.atol)
    assert_close(aggregator.get_buffer("w"), tensor(second["weights"]), rtol=vector.rtol, atol=vector.atol)


@pytest.mark.parametrize("file", ["mgda_torchjd", "cagrad_torchjd", "nash_official", "nash_torchjd", "imtl_g_torchjd"])
def test_zero_rows_are_left_out(file):
    for vector in select(file, "zero_row_*"):
        found = BUILD[file](vector)(vector.jacobian)
        alone = BUILD[file](vector)(without_zero_rows(vector.jacobian))
        assert_close(found, alone, rtol=1e-6, atol=0.0)


def test_mgda_finds_a_shorter_vector_than_the_reference():
    for vector in select("mgda_torchjd", "scaled6_T5_P20"):
        weights = weights_of(make("mgda"), vector.jacobian)
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(1, abs=1e-14)
        assert (weights @ vector.jacobian).norm() < 0.01 * expected(vector).norm()


def test_upgrad_of_short_gradients_is_that_of_long_ones():
    for vector in select("upgrad", "tiny_*"):
        found, longer = (BUILD["upgrad"](vector)(scale * vector.jacobian) for scale in (1.0, 1e6))
        assert_close(found, 1e-6 * longer, rtol=1e-9, atol=0.0)
        weights = tensor(case_weights(vector) or (1 / 3, 1 / 3, 1 / 3))
        assert_close(expected(vector), weights @ vector.jacobian, rtol=1e-9, atol=0.0)  # the mean, as the table says


def test_imtl_g_of_proportional_rows_points_as_that_of_torchjd():
    for vector in select("imtl_g_torchjd", "dup_scaled_*"):
        found, target = make("imtl_g")(vector.jacobian), expected(vector)
        assert_close(found / found.norm(), target / target.norm(), rtol=1e-9, atol=0.0)


def test_imtl_g_of_dependent_rows_has_the_least_unequal_projections():
    # y solves C y = 1 in the least-squares sense, so the residual is orthogonal to every column of C.
    for vector in select("imtl_g_torchjd", "well_T50_P20", "rankdef_*", "stationary_*"):
        norms = vector.jacobian.norm(dim=1)
        units = vector.jacobian / norms[:, None]
        direction = make("imtl_g")(vector.jacobian)
        projections = units @ direction
        factor = projections.sum() / projections.square().sum()
        residual = 1 - factor * projections
        assert (units.T @ residual).norm() <= 1e-8 * units.norm()


def test_cagrad_serves_the_worst_task_better_than_the_reference():
    for vector in select("cagrad_torchjd", "well_T50_P20/c0.9"):
        found, target = BUILD["cagrad_torchjd"](vector)(vector.jacobian), expected(vector)
        mean = vector.jacobian.mean(0)
        assert (found - mean).norm() <= 0.9 * mean.norm() * (1 + 1e-9)
        assert (vector.jacobian @ found).min() >= (vector.jacobian @ target).min() - 1e-9


@pytest.mark.parametrize("file", ["nash_torchjd", "nash_official", "fairgrad_lsq"])
def test_gradients_that_cancel_give_about_nothing(file):
    for vector in select(
        file, "well_T50_P20", "rankdef_T5_P3", "rankdef_T10_P20", "opposite_T2_P3", "stationary_*", "allz*"
    ):
        assert BUILD[file](vector)(vector.jacobian).norm() <= 5e-3


@pytest.mark.parametrize("file", ["nash_torchjd", "nash_official"])
def test_nash_follows_the_task_that_two_opposite_ones_leave_free(file):
    for vector in select(file, "opposite_T3_P20"):
        opposite, others = vector.jacobian[:2], vector.jacobian
        free = next(
            row for row in others if (row + others).norm(dim=1).min() > 1e-9
        )  # the one without an opposite: a = 1 / ||g||, after what the opposite ones span is taken out
        axis = opposite[0] / opposite[0].norm() if not torch.equal(opposite[0], free) else others[2] / others[2].norm()
        rest = free - (free @ axis) * axis
        assert_close(BUILD[file](vector)(vector.jacobian), rest / rest.norm(), rtol=1e-4, atol=0.0)


def test_fairgrad_solves_its_equation_where_least_squares_does_not():
    for vector in select("fairgrad_lsq", "scaled6_T10_P20/alpha0.5"):
        weights = weights_of(BUILD["fairgrad_lsq"](vector), vector.jacobian)
        # y = n w: the equation is C y = y^-2 n, which float64 resolves where J J^T w is lost to cancellation.
        norms = vector.jacobian.norm(dim=1)
        products = cosines(gramian((vector.jacobian,)))
        ours, theirs = (
            (products @ (norms * w) * (norms * w) ** 2 / norms - 1).abs().max()
            for w in (weights, tensor(vector.entry["weights"]))
        )
        assert ours < 0.1
        assert theirs > 1e9


def test_nash_sequence_of_the_official_code():
    num_failed = 0
    for entry in json.loads((DATA / "nash_sequence.json").read_text())["vectors"]:
        update_every = entry["hyperparameters"]["update_weights_every"]
        aggregator = make("nash", update_every=update_every)
        is_solved = False
        for step, (rows, weights, gradient) in enumerate(
            zip(entry["jacobians"], entry["weights_trajectory"], entry["gradients"], strict=True)
        ):
            jacobian, target = tensor(rows), tensor(weights)
            direction = aggregator(jacobian)
            kept = aggregator.get_buffer("kept")
            if step % update_every == 0:
                products = gramian((jacobian,))
                is_solved = bool((target * (products @ target) - 1).abs().max() < 0.1)
                assert (kept * (products @ kept) - 1).abs().max() < 1e-9
                num_failed += not is_solved
            if is_solved:
                assert_close(kept, target, rtol=1e-3, atol=0.0)
                assert_close(direction, tensor(gradient), rtol=1e-3, atol=0.0)
    assert num_failed == 3


# Largest relative error that 1e-8 in LibMTL's denominators explains: about 1e-8 / (n_i n_j) per step, and anything
# where a gradient has been cancelled.
LIBMTL_EPS = {
    "scaled6": 1e-3,
    "tiny": 0.2,
    "scaled2": 1e-5,
    "conflict": 1e-7,
    "opposite_T3": 1e-5,
    "stationary": 1e-5,
}


@pytest.mark.parametrize(("file", "target_update"), [("gradvac_samsung", "adjusted"), ("gradvac_libmtl", "always")])
def test_gradvac_in_given_orders_equals_the_public_sum(file, target_update):
    for vector in (vector for vector in load(file) if len(vector.jacobian) > 1):
        num_tasks = len(vector.jacobian)
        targets = torch.zeros(num_tasks, num_tasks, dtype=torch.float64)
        slack = max((v for k, v in LIBMTL_EPS.items() if vector.case.startswith(k)), default=0.0)
        steps = zip(vector.entry["orders"], vector.entry["gradients"], vector.entry["rho_targets"], strict=True)
        for all_orders, gradient, public_targets in steps:
            others = [[other for other in order if other != task] for task, order in enumerate(all_orders)]
            orders = torch.tensor(others, dtype=torch.int64)
            coefficients, targets = turn(gramian((vector.jacobian,)), orders, targets, 0.5, target_update)
            if vector.status != "ok":
                assert coefficients.isfinite().all()
                continue
            found = coefficients.sum(0) @ vector.jacobian
            rtol = vector.rtol + (slack if file == "gradvac_libmtl" else 0)
            assert_close(found, tensor(gradient), rtol=rtol, atol=vector.atol)
            if slack == 0:
                off_diagonal = 1 - torch.eye(num_tasks)
                assert ((targets - tensor(public_targets)) * off_diagonal).abs().max() <= 1e-6


@pytest.mark.parametrize("vector", load("gradnorm"), ids=lambda v: v.name)
def test_gradnorm_trains_its_weights_as_the_public_code(vector):
    num_tasks = len(vector.jacobian)
    aggregator = make("gradnorm", alpha=vector.hyperparameters["alpha"])
    for step, (losses, weights) in enumerate(zip(vector.entry["losses"], vector.entry["trajectory"], strict=True)):
        found = weights_of(aggregator, (1 + 0.1 * step) * vector.jacobian, tensor(losses))
        # The public weights sum to the number of tasks.
        assert_close(num_tasks * found, tensor(weights), rtol=vector.rtol, atol=0.0)
    assert_close(aggregator.get_buffer("raw.values"), tensor(vector.entry["raw"]), rtol=vector.rtol, atol=0.0)
