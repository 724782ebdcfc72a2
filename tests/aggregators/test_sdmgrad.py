"""SDMGrad: its limits, the optimality of its hull point, and the projection of the official steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.sdmgrad import project_on_simplex
from tests.aggregators.jacobians import FULL_RANK, gaussian
from tests.aggregators.strategies import few, jacobians


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_two_orthogonal_gradients_by_hand():
    # g1 = (2, 0), g2 = (0, 1), lam = 1: g_0 = (1, 1/2), shortest of w (2, 0) + (1 - w) (0, 1) + (1, 1/2):
    # (2 w + 1)^2 + (3/2 - w)^2 is least at 4 (2 w + 1) = 2 (3/2 - w), w = -1/10, clipped to 0: g_w = (0, 1).
    # d = ((0, 1) + (1, 1/2)) / 2 = (1/2, 3/4).
    assert torch.allclose(make("sdmgrad", lam=1.0)(tensor([2.0, 0.0], [0.0, 1.0])), tensor(0.5, 0.75), atol=1e-9)


@pytest.mark.parametrize("case", FULL_RANK)
def test_without_pull_it_is_mgda(case):
    jacobian = FULL_RANK[case]
    expected = make("mgda")(jacobian)
    assert (make("sdmgrad", lam=0.0)(jacobian) - expected).norm() <= 1e-7 * expected.norm()


@pytest.mark.parametrize("case", FULL_RANK)
def test_strong_pull_gives_the_mean(case):
    jacobian = FULL_RANK[case]
    assert (make("sdmgrad", lam=1e6)(jacobian) - jacobian.mean(0)).norm() <= 1e-5 * jacobian.norm()


@few
@given(jacobian=jacobians(decades=(0, 2), may_vanish=False), lam=st.sampled_from([0.1, 0.6, 3.0]))
def test_no_other_point_of_the_hull_is_nearer(jacobian, lam):
    # The shortest v = g_w + lam g_0 has <g_i + lam g_0, v> >= ||v||^2 for every task; d = v / (1 + lam).
    shortest = (1 + lam) * make("sdmgrad", lam=lam)(jacobian)
    vertices = jacobian + lam * jacobian.mean(0)
    slack = vertices @ shortest - shortest.square().sum()
    assert slack.min() >= -1e-9 * vertices.norm(dim=1).max() ** 2


@pytest.mark.parametrize(
    ("point", "nearest"),
    [((0.2, 0.3, 0.5), (0.2, 0.3, 0.5)), ((1.0, 1.0, -5.0), (0.5, 0.5, 0.0)), ((3.0, 0.0, 0.0), (1.0, 0.0, 0.0))],
)
def test_nearest_point_of_the_simplex_by_hand(point, nearest):
    assert torch.allclose(project_on_simplex(tensor(*point)), tensor(*nearest), atol=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_nearest_point_of_the_simplex_has_no_nearer_vertex(seed):
    point = gaussian(1, 7, seed)[0]
    nearest = project_on_simplex(point)
    assert nearest.sum() == pytest.approx(1, abs=1e-14)
    # <point - nearest, vertex - nearest> <= 0 for every vertex e_i.
    gap = point - nearest
    assert (gap - gap @ nearest).max() <= 1e-14


def test_impossible_pull_is_refused():
    with pytest.raises(ValueError, match="lam must be"):
        make("sdmgrad", lam=-0.1)
