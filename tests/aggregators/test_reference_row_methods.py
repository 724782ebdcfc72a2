"""The published codes' directions from fixed rows are reproduced (tests/data/README.md).

Where ours differ on purpose, and why, stands in differences.py.
"""

import pytest
import torch
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.graddrop import keep_one_sign
from tests.aggregators.sequences import Sequence, load_sequences, name_of
from tests.aggregators.vectors import assert_close

OFFICIAL_EPS = 1e-8


@pytest.mark.parametrize("sequence", load_sequences("graddrop"), ids=name_of)
def test_graddrop_with_given_numbers_equals_the_sum_of_torchjd(sequence: Sequence):
    jacobian = sequence["jacobian"]
    leaks = torch.tensor(sequence.options["leak"], dtype=torch.float64).expand(len(jacobian)).clone()
    found = keep_one_sign(jacobian, sequence["uniforms"], leaks)
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
    assert sequence["lambdas"][-1][~has_gradient] > 0.9 / len(has_gradient)


def effect_of_eps(averages: Tensor) -> float:
    """Return by how much 1e-8 added to the lengths changes the sum of max_j n_j / n_i y_i, at most."""
    lengths = averages.norm(dim=1)
    return float((lengths.max() * OFFICIAL_EPS / (lengths[lengths > 0] + OFFICIAL_EPS)).sum())


@pytest.mark.parametrize("sequence", load_sequences("db_mtl_libmtl"), ids=name_of)
def test_db_mtl_is_the_sum_of_libmtl_over_the_number_of_tasks(sequence: Sequence):
    aggregator = make("db_mtl", beta=sequence.options["DB_beta"], beta_decay=sequence.options["DB_beta_sigma"])
    rtol, atol = sequence.tolerance["rtol"], sequence.tolerance["atol"]
    for jacobian, gradient in zip(sequence["jacobians"], sequence["gradients"], strict=True):
        found = aggregator(jacobian, losses=sequence["losses"]) * len(jacobian)
        averages = aggregator.state_dict()["averages.leaf_0"]
        assert_close(found, gradient, rtol=rtol, atol=atol + effect_of_eps(averages))
        # With 1e-8 added to the lengths of our averages it is theirs to the last digits.
        lengths = averages.norm(dim=1)
        assert_close((lengths.max() / (lengths + OFFICIAL_EPS)) @ averages, gradient, rtol=rtol, atol=atol)


@pytest.mark.parametrize("sequence", load_sequences("db_mtl_dibsrepo"), ids=name_of)
def test_db_mtl_differs_from_the_variant_of_another_code_as_stated(sequence: Sequence):
    # That code starts the averages at the first gradient, applies the weights to the gradients of this update instead
    # of their averages, and clips to length 1. All rows grow alike here, so that the directions stay parallel.
    beta = sequence.options["beta"]
    aggregator = make("db_mtl", beta=beta)
    losses = sequence["losses"]
    start = sequence["jacobian"] / (losses + OFFICIAL_EPS)[:, None]
    for step, official in enumerate(sequence["gradients"]):
        growth = 1 + 0.3 * step
        found = aggregator(growth * sequence["jacobian"], losses=losses)
        averages = aggregator.state_dict()["averages.leaf_0"]
        lengths = (averages + beta ** (step + 1) * start).norm(dim=1)
        total = (lengths.max() / (lengths + OFFICIAL_EPS)) @ (growth * start)
        assert_close(total / (total.norm() + 1e-6).clamp(min=1), official, **sequence.tolerance)
        effect = effect_of_eps(averages)
        ours = found * len(start)
        if ours.norm() > 10 * effect:
            assert_close(
                ours / ours.norm(), official / official.norm(), rtol=1e-7, atol=2 * effect / float(ours.norm())
            )
        else:
            assert sequence.name in {"opposite_T2_P3", "allzero_T3_P3"}
            assert official.norm() <= 1e-7
