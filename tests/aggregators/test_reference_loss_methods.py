"""The published codes' weights from fixed losses are reproduced (tests/data/README.md).

Where ours differ on purpose, and why, stands in differences.py.
"""

import pytest
import torch
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.rlw import weights_from
from mtrl.aggregators.system import GradientSystem
from tests.aggregators.sequences import Sequence, load_sequences, losses_of, name_of
from tests.aggregators.vectors import assert_close, load


def as_tensor(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def ready(name: str, num_tasks: int, **options) -> Aggregator:
    aggregator = make(name, **options)
    aggregator.setup(num_tasks, [torch.Size([1])], torch.device("cpu"))
    return aggregator


def weights(aggregator: Aggregator, losses: Tensor) -> Tensor:
    found = aggregator.aggregate(GradientSystem(num_tasks=len(losses), losses=losses)).weights
    assert found is not None
    return found.clone()


@pytest.mark.parametrize("vector", load("sum"), ids=lambda vector: vector.name)
def test_sum_equals_torchjd(vector):
    assert_close(make("sum")(vector.jacobian), vector.gradient, rtol=vector.rtol, atol=vector.atol)


@pytest.mark.parametrize("sequence", load_sequences("famo"), ids=name_of)
def test_famo_equals_the_official_code(sequence: Sequence):
    options = sequence.options
    losses, trajectory = sequence["losses"], sequence.entry["trajectory"]
    famo = make("famo", lr=options["w_lr"], weight_decay=options["gamma"], min_loss=options["min_losses"])
    famo.setup(losses.shape[1], [torch.Size([1])], torch.device("cpu"))
    logits = famo.state_dict()["logits.values"]
    for before, after, expected in zip(losses, losses[1:], trajectory, strict=False):
        assert_close(logits, as_tensor(expected["logits"]), **sequence.tolerance)
        assert_close(logits.softmax(0), as_tensor(expected["z"]), **sequence.tolerance)
        assert_close(weights(famo, before), as_tensor(expected["dloss_weights"]), **sequence.tolerance)
        famo.observe(after)
    assert len(trajectory) == len(losses) - 1
    assert_close(logits, sequence["final_logits"], **sequence.tolerance)


@pytest.mark.parametrize("sequence", losses_of("uw"), ids=name_of)
def test_uncertainty_equals_the_official_code(sequence: Sequence):
    losses, log_variances = sequence["losses"], sequence["logsigma"]
    num_tasks = losses.shape[1]
    uncertainty = ready("uncertainty", num_tasks, lr=sequence.options["lr"])
    found = uncertainty.state_dict()["log_variances.values"]
    official = torch.empty(0)
    for step, values in enumerate(losses):
        s = found.clone()
        assert_close(s, log_variances[step], **sequence.tolerance)
        official = num_tasks * weights(uncertainty, values)
        assert_close(official @ values + s.sum() / 2, sequence["weighted_losses"][step], **sequence.tolerance)
    assert_close(2 * official, sequence["weights"], **sequence.tolerance)  # recorded without the half


@pytest.mark.parametrize("sequence", losses_of("imtl_l"), ids=name_of)
def test_imtl_l_has_the_official_weights_and_slope_at_the_start(sequence: Sequence):
    (losses,) = sequence["losses"]
    imtl_l = ready("imtl_l", len(losses))
    assert_close(len(losses) * weights(imtl_l, losses), sequence["weights"], **sequence.tolerance)
    slope = imtl_l.state_dict()["log_scales.average"] / (1 - 0.9)  # Adam's first average is 0.1 times the slope
    assert_close(slope, sequence["dlogscale"], **sequence.tolerance)


@pytest.mark.parametrize("sequence", losses_of("si"), ids=name_of)
def test_scale_invariant_equals_the_official_code(sequence: Sequence):
    (losses,) = sequence["losses"]
    found = len(losses) * weights(ready("scale_invariant", len(losses)), losses)
    assert_close(found, sequence["weights"], **sequence.tolerance)


@pytest.mark.parametrize("sequence", losses_of("rlw"), ids=name_of)
def test_rlw_equals_the_official_code(sequence: Sequence):
    normals = sequence["normals"]
    assert_close(len(normals) * weights_from(normals), sequence["weights"], **sequence.tolerance)


@pytest.mark.parametrize("sequence", losses_of("dwa"), ids=name_of)
def test_dwa_equals_the_official_code_once_both_windows_hold_losses(sequence: Sequence):
    losses, official = sequence["losses"], sequence["trajectory"]
    num_tasks, window = losses.shape[1], sequence.options["window"]
    dwa = ready("dwa", num_tasks, window=window, temperature=sequence.options["temp"])
    found = num_tasks * torch.stack([weights(dwa, values) for values in losses])
    full = 2 * window - 1  # the update, counted from 0, whose losses fill the second window
    assert len(official) > full + 1
    for step in range(full, len(official)):
        assert_close(found[step], official[step], **sequence.tolerance)
    # Before that the official code compares with ones that are no losses, from update 26 on; ours waits.
    assert torch.allclose(found[:full], torch.ones(num_tasks).double(), rtol=1e-14)
    different = (official[:full] - 1).abs().amax(1) > 1e-6
    assert torch.equal(different.nonzero().flatten(), torch.arange(window + 1, full))
    assert_close(found[-1], sequence["weights"], **sequence.tolerance)
