"""An independent library gives the same directions."""

import pytest
import torch

from mtrl.aggregators import make
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK
from tests.aggregators.vectors import assert_close

torchjd = pytest.importorskip("torchjd.aggregation")

# Left out: cases in which it depends on rounding whether an eigenvalue counts as zero.
CASES = FULL_RANK | {
    name: DEGENERATE[name]
    for name in (
        "one task",
        "more tasks than parameters",
        "duplicated rows",
        "opposite rows",
        "zero row",
        "tiny",
        "huge",
    )
}


@pytest.mark.parametrize("scale_mode", ["min", "median", "rmse"])
@pytest.mark.parametrize("case", CASES)
def test_aligned_equals_torchjd(case, scale_mode):
    jacobian = CASES[case]
    expected = torchjd.AlignedMTL(scale_mode=scale_mode)(jacobian)
    found = make("aligned", scale_mode=scale_mode)(jacobian)
    assert_close(found, expected, rtol=1e-8, atol=1e-12 * float(jacobian.norm()))


@pytest.mark.parametrize("case", FULL_RANK)
def test_aligned_with_preference_equals_torchjd(case):
    jacobian = FULL_RANK[case]
    preference = torch.linspace(0.1, 1.0, len(jacobian), dtype=torch.float64)
    expected = torchjd.AlignedMTL(pref_vector=preference)(jacobian)
    found = make("aligned", weights=tuple(preference.tolist()))(jacobian)
    assert_close(found, expected, rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("case", [case for case, jacobian in CASES.items() if len(jacobian) <= 2])
def test_pcgrad_of_two_tasks_is_half_that_of_torchjd(case):
    jacobian = CASES[case]
    with torch.random.fork_rng():  # TorchJD draws from the global stream
        expected = torchjd.PCGrad()(jacobian) / len(jacobian)
    assert_close(make("pcgrad")(jacobian), expected, rtol=1e-12, atol=1e-14 * float(jacobian.norm()))


@pytest.mark.parametrize("case", CASES)
def test_mean_equals_torchjd(case):
    assert_close(make("mean")(CASES[case]), torchjd.Mean()(CASES[case]), rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("case", CASES)
def test_config_equals_torchjd(case):
    jacobian = CASES[case]
    assert_close(make("config")(jacobian), torchjd.ConFIG()(jacobian), rtol=1e-7, atol=1e-12 * float(jacobian.norm()))


@pytest.mark.parametrize("case", FULL_RANK)
def test_imtl_g_equals_torchjd(case):
    jacobian = FULL_RANK[case]
    assert_close(make("imtl_g")(jacobian), torchjd.IMTLG()(jacobian), rtol=1e-7, atol=0.0)
