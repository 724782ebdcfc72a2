"""DiBS-MTL: values by hand, invariance to what a loss is measured in, and the published codes' results."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import make
from tests.aggregators.jacobians import FULL_RANK, gaussian
from tests.aggregators.vectors import Vector, assert_close, load

profile = settings(max_examples=50, derandomize=True, deadline=None, database=None)
OPTIONS = {"mean of units": {}, "bargaining": {"num_steps": 7, "step_size": 0.6}}
options = pytest.mark.parametrize("kind", OPTIONS)


def dibs(**chosen):
    return make("dibs", **chosen)


def units(jacobian: Tensor) -> Tensor:
    return torch.nn.functional.normalize(jacobian, dim=1, eps=0.0).nan_to_num(0.0)


def bargain_in_parameter_space(jacobian: Tensor, num_steps: int, step_size: float) -> tuple[Tensor, list[float]]:
    """Return the direction of the published dynamic, and how far from the centre each step led before projection."""
    point, lengths = torch.zeros_like(jacobian[0]), []
    for _ in range(num_steps):
        distances = (point + units(jacobian)).norm(dim=1) * (jacobian.norm(dim=1) > 0)
        point = point - step_size * (distances[:, None] * units(jacobian)).mean(0)
        lengths.append(float(point.norm()))
        point = point / point.norm().clamp(min=1)
    return -point, lengths


# ------------------------------------------------------------------------------------------------- values by hand


def test_one_step_is_the_mean_of_the_unit_gradients():
    # (3, 4) / 5 = (0.6, 0.8), (0, -200) / 200 = (0, -1): mean (0.3, -0.1).
    jacobian = torch.tensor([[3.0, 4.0], [0.0, -200.0]], dtype=torch.float64)
    assert torch.allclose(dibs()(jacobian), torch.tensor([0.3, -0.1], dtype=torch.float64), rtol=1e-14)


def test_step_size_scales_one_step():
    assert torch.equal(dibs(step_size=0.25)(gaussian(4, 6)), 0.25 * dibs()(gaussian(4, 6)))


def test_second_step_is_weighted_by_the_distances_left():
    # Orthogonal gradients, T = 2: Delta_1 = -(1/2, 1/2), both at distance |(1/2, -1/2)| = sqrt(1/2) of -u_i.
    # Delta_2 = Delta_1 - sqrt(1/2)/2 (1, 1): direction (0.5 + 0.35355, same), length 1.2071 > 1: onto the sphere.
    jacobian = torch.diag(torch.tensor([2.0, 70.0], dtype=torch.float64))
    assert torch.allclose(
        dibs(num_steps=2)(jacobian), torch.full((2,), math.sqrt(0.5), dtype=torch.float64), rtol=1e-14
    )
    # At step size 0.5: Delta_1 = -(1/4, 1/4), distances sqrt(9/16 + 1/16) = sqrt(10)/4, Delta_2 = -(1 + sqrt(10)/4)/4.
    found = dibs(num_steps=2, step_size=0.5)(jacobian)
    assert torch.allclose(found, torch.full((2,), (1 + math.sqrt(10) / 4) / 4, dtype=torch.float64), rtol=1e-14)


def test_several_steps_favour_the_task_that_is_farther_from_its_optimum():
    # Two gradients agree and one is orthogonal. Each step brings the pair closer to its optimum than the single one.
    jacobian = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    one, many = dibs()(jacobian), dibs(num_steps=100)(jacobian)
    assert many[1] / many[0] > one[1] / one[0] + 0.1


def test_bargaining_converges():
    jacobian = gaussian(5, 8)
    late, later = dibs(num_steps=400)(jacobian), dibs(num_steps=800)(jacobian)
    assert (late - later).norm() <= 1e-9


def test_one_task_goes_to_its_optimum():
    gradient = gaussian(1, 5)
    assert torch.allclose(dibs()(gradient), units(gradient)[0], rtol=1e-14)
    assert torch.allclose(dibs(num_steps=20, step_size=0.5)(gradient), units(gradient)[0], atol=1e-5)


# ---------------------------------------------------------------------------------- properties of the published rule


@pytest.mark.parametrize("case", FULL_RANK)
@pytest.mark.parametrize(("num_steps", "step_size"), [(1, 1.0), (5, 0.3), (30, 1.0)])
def test_weights_on_the_gramian_equal_the_dynamic_in_parameter_space(case, num_steps, step_size):
    jacobian = FULL_RANK[case]
    expected = bargain_in_parameter_space(jacobian, num_steps, step_size)[0]
    assert_close(dibs(num_steps=num_steps, step_size=step_size)(jacobian), expected, rtol=1e-9, atol=1e-14)


@options
@profile
@given(num_tasks=st.sampled_from([1, 2, 3, 10, 50]), exponents=st.data(), seed=st.integers(0, 99))
def test_powers_of_two_change_not_one_bit(kind, num_tasks, exponents, seed):
    # 2^-20 to 2^20 are twelve decades; these factors leave every rounding as it is.
    drawn = exponents.draw(st.lists(st.integers(-20, 20), min_size=num_tasks, max_size=num_tasks))
    factors = torch.tensor(drawn, dtype=torch.float64).exp2()
    jacobian, method = gaussian(num_tasks, 20, seed), dibs(**OPTIONS[kind])
    assert torch.equal(method(factors[:, None] * jacobian), method(jacobian))


@options
@profile
@given(num_tasks=st.sampled_from([2, 3, 10, 50]), exponents=st.data(), seed=st.integers(0, 99))
def test_positive_factors_over_twelve_decades_change_nothing(kind, num_tasks, exponents, seed):
    drawn = exponents.draw(st.lists(st.floats(-6, 6), min_size=num_tasks, max_size=num_tasks))
    factors = 10 ** torch.tensor(drawn, dtype=torch.float64)
    jacobian, method = gaussian(num_tasks, 20, seed), dibs(**OPTIONS[kind])
    assert_close(method(factors[:, None] * jacobian), method(jacobian), rtol=1e-12, atol=1e-14)


TRANSFORMS = {
    "affine": lambda loss: 1e-6 * loss - 40.0,
    "exponential": lambda loss: (3 * loss).exp(),
    "signed fourth power": lambda loss: loss.sign() * loss**4,
    "arctangent": lambda loss: (loss / 2).atan(),
    "logarithm": lambda loss: (loss + 100.0).log(),
}


@options
@profile
@given(chosen=st.lists(st.sampled_from(list(TRANSFORMS)), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_increasing_transforms_of_the_losses_change_nothing(kind, chosen, seed):
    goals, slopes = gaussian(3, 4, seed), gaussian(3, 4, seed + 100)

    def direction(transforms) -> Tensor:
        point = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        losses = [
            transform((slope * point - goal).square().sum().sqrt() - 0.3)
            for transform, slope, goal in zip(transforms, slopes, goals, strict=True)
        ]
        rows = [torch.autograd.grad(loss, point)[0] for loss in losses]
        return dibs(**OPTIONS[kind])(torch.stack(rows))

    plain = direction([lambda loss: loss] * 3)
    assert_close(direction([TRANSFORMS[name] for name in chosen]), plain, rtol=1e-9, atol=1e-12)


@options
@profile
@given(seed=st.integers(0, 999), exponent=st.floats(-6, 6), angle=st.floats(0.01, 3.13))
def test_of_two_tasks_none_is_harmed(kind, seed, exponent, angle):
    first, second = gaussian(2, 5, seed)
    second = second - (second @ first) / first.square().sum() * first
    second = 10**exponent * (math.cos(angle) * first / first.norm() + math.sin(angle) * second / second.norm())
    jacobian = torch.stack([first, second])
    slopes = jacobian @ dibs(**OPTIONS[kind])(jacobian)
    assert (slopes > 0).all()


def test_one_of_three_tasks_may_be_harmed():
    # Units (1, 0) twice and (-0.9, sqrt(0.19)): the sum is (1.1, 0.436), its product with the third -0.99 + 0.19 < 0.
    jacobian = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-0.9, math.sqrt(0.19)]], dtype=torch.float64)
    assert (jacobian @ dibs()(jacobian))[2] < -0.2


@options
def test_zero_rows_get_no_weight_and_keep_their_place_in_the_mean(kind):
    jacobian = gaussian(4, 6)
    jacobian[[0, 2]] = 0
    aggregation = dibs(**OPTIONS[kind])
    found = aggregation(jacobian)
    assert found.isfinite().all()
    expected = bargain_in_parameter_space(jacobian, **{"num_steps": 1, "step_size": 1.0, **OPTIONS[kind]})[0]
    assert_close(found, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("shortest", [1e-30, 1e-38, 1e-45])
def test_gradients_at_the_end_of_float32_stay_finite(shortest):
    jacobian = torch.tensor([[shortest, 0.0], [0.0, 1.0]], dtype=torch.float32)
    found = dibs()(jacobian)
    assert found.isfinite().all()
    assert found[1] == 0.5
    assert found[0] == pytest.approx(0.5 if shortest == 1e-30 else 0.0, rel=1e-6)


@options
def test_fifty_tasks(kind):
    jacobian = gaussian(50, 20) * torch.logspace(-6, 6, 50, dtype=torch.float64)[:, None]
    steps = {"num_steps": 1, "step_size": 1.0, **OPTIONS[kind]}
    expected = bargain_in_parameter_space(jacobian, **steps)[0]
    assert_close(dibs(**OPTIONS[kind])(jacobian), expected, rtol=1e-9, atol=0.0)


def test_the_point_reached_lies_in_the_ball():
    for seed in range(20):
        assert dibs(num_steps=5)(gaussian(6, 4, seed)).norm() <= 1 + 1e-12


@pytest.mark.parametrize(("name", "value"), [("num_steps", 0), ("step_size", 0.0), ("step_size", math.inf)])
def test_impossible_options_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        dibs(**{name: value})


# ---- what published code returns (tests/data/README.md); every vector is accounted for.
# Where ours differ on purpose, and why, stands in differences.py.


def _ids(vector: Vector) -> str:
    return vector.name


def _rtol(vector: Vector) -> float:
    norms = vector.jacobian.norm(dim=1)
    norms = norms[norms > 0]
    return vector.rtol + (2 * vector.hyperparameters["norm_eps"] / float(norms.min()) if len(norms) else 0.0)


@pytest.mark.parametrize("vector", load("dibs_single_mtl"), ids=_ids)
def test_official_single_step(vector):
    factor = len(vector.jacobian) * vector.hyperparameters["radius"] * vector.hyperparameters["step_size"]
    found = factor * dibs()(vector.jacobian)
    if vector.status == "ok":
        assert_close(found, vector.gradient, rtol=vector.rtol, atol=vector.atol)
    else:
        assert (vector.jacobian.norm(dim=1) == 0).any()
        assert vector.gradient.isnan().all()
        assert_close(found, factor * units(vector.jacobian).mean(0), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("vector", load("dibs_multistep_mtl"), ids=_ids)
def test_official_several_steps(vector):
    radius, num_steps = vector.hyperparameters["radius"], vector.entry["inner_steps_recorded"]
    step_size = len(vector.jacobian) * radius / vector.hyperparameters["max_steps"]
    found = dibs(num_steps=num_steps, step_size=step_size)(vector.jacobian) * radius
    projected = vector.gradient * (radius / vector.gradient.norm()).clamp(max=1)
    assert_close(found, projected, rtol=_rtol(vector), atol=vector.atol)


@pytest.mark.parametrize("vector", load("dibs_mtrl"), ids=_ids)
def test_official_reinforcement_learning(vector):
    radius, num_steps = vector.hyperparameters["radius"], vector.hyperparameters["max_steps"]
    step_size = len(vector.jacobian) * radius / num_steps
    _, lengths = bargain_in_parameter_space(vector.jacobian, num_steps, step_size)
    left = [length > 1 + 1e-12 for length in lengths]
    kept = left.index(True) if True in left else num_steps
    if kept == 0:
        assert vector.gradient.norm() == 0
        expected = dibs()(vector.jacobian)
        assert_close(
            dibs(num_steps=1, step_size=step_size)(vector.jacobian), expected / expected.norm(), rtol=1e-9, atol=0
        )
    else:
        found = dibs(num_steps=kept, step_size=step_size)(vector.jacobian) * radius
        assert_close(found, vector.gradient, rtol=_rtol(vector), atol=vector.atol)
