"""The published codes' directions from fixed rows are reproduced (tests/data/README.md).

On purpose different, see the classes:

| method | what | how much | why |
|---|---|---|---|
| graddrop, db_mtl | mean over tasks, not their sum | 1/T | one convention |
| moco | ||g|| instead of ||g|| + 1e-8 | 1e-8 / ||g|| of a row: 0.2% in `tiny` | gradients of any size |
| moco | a task that never had a gradient has no weight | 3 vectors, see the test | it must not disturb the others |
| db_mtl | ||y|| instead of ||y|| + 1e-8 | 1e-8 / ||y|| of a row: 3% in `tiny` | gradients of any size |
"""

import pytest
import torch
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.graddrop import drop
from tests.aggregators.sequences import Sequence, load_sequences, name_of
from tests.aggregators.vectors import assert_close

OFFICIAL_EPS = 1e-8


@pytest.mark.parametrize("sequence", load_sequences("graddrop"), ids=name_of)
def test_graddrop_with_given_numbers_equals_the_sum_of_torchjd(sequence: Sequence):
    jacobian = sequence["jacobian"]
    leaks = torch.tensor(sequence.options["leak"], dtype=torch.float64).expand(len(jacobian)).clone()
    found = drop(jacobian, sequence["uniforms"], leaks).sum(0)
    assert_close(found, sequence["gradient"], **sequence.tolerance)


def moco(sequence: Sequence):
    options = sequence.options
    return make(
        "moco",
        beta=options["MoCo_beta"],
        beta_decay=options["MoCo_beta_sigma"],
        gamma=options["MoCo_gamma"],
        gamma_decay=options["MoCo_gamma_sigma"],
        rho=options["MoCo_rho"],
    )


MOCO = load_sequences("moco_libmtl")
WITH_ZERO_ROW = [sequence for sequence in MOCO if sequence.name.startswith("zero_row")]


@pytest.mark.parametrize("sequence", [entry for entry in MOCO if entry not in WITH_ZERO_ROW], ids=name_of)
def test_moco_equals_libmtl(sequence: Sequence):
    aggregator = moco(sequence)
    for jacobian, gradient, weights in zip(
        sequence["jacobians"], sequence["gradients"], sequence["lambdas"], strict=True
    ):
        # L g / (n + 1e-8) is our L' g / n with L' = L n / (n + 1e-8).
        lengths = jacobian.norm(dim=1)
        found = aggregator(jacobian, losses=sequence["losses"] * lengths / (lengths + OFFICIAL_EPS))
        assert_close(found, gradient, **sequence.tolerance)
        if jacobian.any():
            assert_close(aggregator.state_dict()["task_weights"], weights, **sequence.tolerance)


@pytest.mark.parametrize("sequence", WITH_ZERO_ROW, ids=name_of)
def test_moco_gives_a_task_without_gradient_no_weight_where_libmtl_does(sequence: Sequence):
    aggregator, without = moco(sequence), moco(sequence)
    has_gradient = sequence["jacobians"][0].any(1)
    for jacobian in sequence["jacobians"]:
        found = aggregator(jacobian, losses=sequence["losses"])
        expected = without(jacobian[has_gradient], losses=sequence["losses"][has_gradient])
        assert_close(found, expected, rtol=1e-14, atol=0.0)
    assert not aggregator.state_dict()["task_weights"][~has_gradient].any()
    official = sequence["lambdas"][-1]
    assert official[~has_gradient] > official[has_gradient].max()


def db_mtl_sequences() -> list[Sequence]:
    return load_sequences("db_mtl_libmtl")


def rounding_of_lengths(sequence: Sequence, averages: Tensor) -> float:
    """Return by how much 1e-8 added to the lengths changes the direction, at most."""
    lengths = averages.norm(dim=1)
    contributions = lengths.max() * OFFICIAL_EPS / (lengths[lengths > 0] + OFFICIAL_EPS)
    return float(contributions.sum())


@pytest.mark.parametrize("sequence", db_mtl_sequences(), ids=name_of)
def test_db_mtl_is_the_sum_of_libmtl_over_the_number_of_tasks(sequence: Sequence):
    aggregator = make("db_mtl", beta=sequence.options["DB_beta"], beta_decay=sequence.options["DB_beta_sigma"])
    rtol, atol = sequence.tolerance["rtol"], sequence.tolerance["atol"]
    for jacobian, gradient in zip(sequence["jacobians"], sequence["gradients"], strict=True):
        found = aggregator(jacobian, losses=sequence["losses"]) * len(jacobian)
        averages = aggregator.state_dict()["averages.leaf_0"]
        assert_close(found, gradient, rtol=rtol, atol=atol + rounding_of_lengths(sequence, averages))
        # With 1e-8 added to the lengths of our averages it is theirs to the last digits.
        lengths = averages.norm(dim=1)
        assert_close((lengths.max() / (lengths + OFFICIAL_EPS)) @ averages, gradient, rtol=rtol, atol=atol)


@pytest.mark.parametrize("sequence", load_sequences("db_mtl_dibsrepo"), ids=name_of)
def test_db_mtl_points_where_the_variant_of_another_code_does(sequence: Sequence):
    # It applies the weights to the gradients of this update instead of the averages, and clips to length 1. Rows that
    # all grow alike, as here, make these parallel.
    aggregator = make("db_mtl", beta=sequence.options["beta"])
    for step, official in enumerate(sequence["gradients"]):
        jacobian = sequence["jacobian"] * (1 + 0.3 * step)
        found = aggregator(jacobian, losses=sequence["losses"])
        rtol = sequence.tolerance["rtol"] + rounding(sequence)
        if official.norm() < 1e-12:
            assert found.norm() <= 1e-12 * jacobian.norm()
        else:
            assert_close(found / found.norm(), official / official.norm(), rtol=rtol, atol=sequence.tolerance["atol"])


def rounding(sequence: Sequence) -> float:
    return 0.0
