"""Methods that see only losses: values by hand, and what each keeps.

sum, famo, uncertainty, imtl_l, scale_invariant, dwa; random weights have a file of their own.
"""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.system import GradientSystem
from tests.aggregators.jacobians import gaussian

METHODS = ("sum", "famo", "uncertainty", "imtl_l", "scale_invariant", "dwa")
READ_LOSSES = ("famo", "uncertainty", "imtl_l", "scale_invariant", "dwa", "moco", "db_mtl")
profile = settings(max_examples=25, derandomize=True, deadline=None, database=None)


def ready(name: str, num_tasks: int, **options) -> Aggregator:
    aggregator = make(name, **options)
    aggregator.setup(num_tasks, [torch.Size([1])], torch.device("cpu"))
    return aggregator


def weights(aggregator: Aggregator, losses) -> Tensor:
    losses = torch.as_tensor(losses, dtype=torch.float64)
    found = aggregator.aggregate(GradientSystem(num_tasks=len(losses), losses=losses)).weights
    assert found is not None
    return found.clone()


def weights_after(num_updates: int, aggregator: Aggregator, losses) -> Tensor:
    for _ in range(num_updates - 1):
        weights(aggregator, losses)
    return weights(aggregator, losses)


def observe(aggregator: Aggregator, losses) -> None:
    aggregator.observe(torch.as_tensor(losses, dtype=torch.float64))


def state(aggregator: Aggregator, key: str) -> Tensor:
    return aggregator.state_dict()[key]


def tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# ---- all of them


@pytest.mark.parametrize("name", METHODS)
def test_one_backward_pass_is_all_they_need(name):
    assert make(name).need == Need.LOSSES


@pytest.mark.parametrize("name", READ_LOSSES)
def test_without_losses_the_call_is_refused_with_what_is_missing(name):
    with pytest.raises(ValueError, match=r"losses are missing.*losses="):
        make(name)(gaussian(3, 5))


def test_number_of_losses_must_be_that_of_the_rows():
    # Unchecked call: the shape checker of the tests would speak first.
    with pytest.raises(ValueError, match=r"losses must be \(3,\).*\(2,\)"):
        inspect.unwrap(Aggregator.forward)(make("famo"), gaussian(3, 5), torch.ones(2))


@pytest.mark.parametrize("name", READ_LOSSES)
def test_losses_of_a_graph_leave_none_in_the_state(name):
    aggregator = make(name)
    losses = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for _ in range(2):
        aggregator(gaussian(3, 5), losses=losses)
        aggregator.observe(losses)
    assert not any(value.requires_grad for value in aggregator.buffers())


LOSS = st.floats(-1e12, 1e12) | st.sampled_from([0.0, 1e-12, -1e-12, 1.0, 1e6, 1.7e308, -1.7e308])


@pytest.mark.parametrize("name", READ_LOSSES)
@profile
@given(data=st.data())
def test_any_finite_losses_give_finite_directions_update_after_update(name, data):
    num_tasks = data.draw(st.sampled_from([1, 2, 10, 50]))
    losses = st.lists(LOSS, min_size=num_tasks, max_size=num_tasks)
    aggregator = make(name, window=1) if name == "dwa" else make(name)
    jacobian = gaussian(num_tasks, 4)
    for _ in range(3):
        assert aggregator(jacobian, losses=torch.tensor(data.draw(losses), dtype=torch.float64)).isfinite().all()
        observe(aggregator, data.draw(losses))
    assert all(value.isfinite().all() for value in aggregator.state_dict().values())
    assert aggregator(jacobian, losses=torch.ones(num_tasks).double()).isfinite().all()


@pytest.mark.parametrize("name", METHODS)
@profile
@given(data=st.data())
def test_weights_are_not_negative_for_losses_over_twelve_decades(name, data):
    num_tasks = data.draw(st.sampled_from([1, 2, 50]))
    exponents = st.lists(st.floats(-6, 6), min_size=num_tasks, max_size=num_tasks)
    aggregator = make(name, window=1) if name == "dwa" else make(name)
    aggregator.setup(num_tasks, [torch.Size([1])], torch.device("cpu"))
    for _ in range(3):
        found = weights(aggregator, [10**exponent for exponent in data.draw(exponents)])
        assert (found >= 0).all() if name == "dwa" else (found > 0).all()  # a ratio of 1e12 is softmax's 0 and 1
        if name in {"famo", "dwa"}:
            assert float(found.sum()) == pytest.approx(1, rel=1e-12)
        observe(aggregator, [10**exponent for exponent in data.draw(exponents)])


@pytest.mark.parametrize("name", METHODS)
def test_weights_follow_their_tasks_when_these_change_places(name):
    plain, permuted = ready(name, 4), ready(name, 4)
    order = [2, 0, 3, 1]
    for step in range(60):  # beyond both windows of dwa
        losses = gaussian(4, 1, step)[:, 0].exp()
        assert torch.allclose(weights(permuted, losses[order]), weights(plain, losses)[order], rtol=1e-12)
        after = losses * gaussian(4, 1, step + 100)[:, 0].exp()
        observe(plain, after)
        observe(permuted, after[order])


# ---- sum


def test_sum_by_hand():
    # (1, 2) + (3, -4) + (5, 8) = (9, 6).
    assert torch.equal(make("sum")(torch.tensor([[1.0, 2.0], [3.0, -4.0], [5.0, 8.0]])), torch.tensor([9.0, 6.0]))


# ---- famo


def test_famo_starts_with_weights_inverse_to_the_distances():
    # z = 1/3 each; D = 1, 2, 4 above min_loss 1 (and 1e-8): a = (1, 1/2, 1/4) / (7/4) = (4, 2, 1) / 7.
    found = weights(ready("famo", 3, min_loss=1.0), [2, 3, 5])
    assert torch.allclose(found, tensor(4, 2, 1) / 7, rtol=1e-7)


def test_famo_gives_weight_to_the_task_that_decreased_less():
    # Log decreases log 2 and log 1; slope of the first logit z1 (log 2 - log(2) / 2) = log(2) / 4, of the second minus
    # that. Adam's first step is its step size against the sign: -0.025 and +0.025.
    famo = ready("famo", 2)
    weights(famo, [1, 1])
    observe(famo, [0.5, 1])
    assert torch.allclose(state(famo, "logits.values"), tensor(-0.025, 0.025), rtol=1e-6)
    assert torch.allclose(weights(famo, [1, 1]), torch.softmax(tensor(-0.025, 0.025), 0), rtol=1e-6)


def test_famo_weights_times_distances_are_in_the_proportion_of_z():
    famo = ready("famo", 5)
    for step in range(10):
        losses = gaussian(5, 1, step)[:, 0].exp()
        z = state(famo, "logits.values").softmax(0)
        products = weights(famo, losses) * (losses + 1e-8)
        assert torch.allclose(products / products.sum(), z, rtol=1e-12)
        observe(famo, losses * gaussian(5, 1, step + 50)[:, 0].exp())


@profile
@given(exponents=st.lists(st.floats(-3, 9), min_size=3, max_size=3))
def test_famo_logits_do_not_depend_on_the_units_of_the_losses(exponents):
    # 1e-8 is added to losses of 1e-5 and more here: relative errors of 1e-3 at the most, before Adam's normalisation.
    units = tensor(*(10**exponent for exponent in exponents))
    plain, scaled = ready("famo", 3), ready("famo", 3)
    for step in range(5):
        before = gaussian(3, 1, step)[:, 0].exp()
        after = before * gaussian(3, 1, step + 50)[:, 0].exp()
        found, expected = weights(scaled, units * before), weights(plain, before)
        assert torch.allclose(found * units / (found @ units), expected, rtol=1e-2)
        observe(plain, after)
        observe(scaled, units * after)
    assert torch.allclose(state(scaled, "logits.values"), state(plain, "logits.values"), rtol=0.02, atol=1e-4)


def test_famo_learns_nothing_from_a_loss_that_is_nan_after_the_step():
    famo = ready("famo", 3)
    weights(famo, [1, 1, 1])
    observe(famo, [math.nan, 0.5, 1])
    assert weights(famo, [1, 1, 1]).isfinite().all()


def test_famo_without_a_look_after_the_step_keeps_equal_z():
    famo = ready("famo", 2)
    for _ in range(3):
        assert torch.allclose(weights(famo, [1, 3]), tensor(0.75, 0.25), rtol=1e-7)


# ---- uncertainty


def test_uncertainty_by_hand():
    # s = 0: weights 1 / (2 T) = 1/4. Slopes (1 - L) / 2 = (-1/2, 1/4): Adam steps +0.025 and -0.025 in s.
    uncertainty = ready("uncertainty", 2)
    assert torch.equal(weights(uncertainty, [2, 0.5]), tensor(0.25, 0.25))
    assert torch.allclose(weights(uncertainty, [2, 0.5]), tensor(-0.025, 0.025).exp() / 4, rtol=1e-6)


def test_uncertainty_comes_to_rest_where_the_variances_are_the_losses():
    losses = tensor(0.2, 1, 4)
    uncertainty = ready("uncertainty", 3)
    found = weights_after(600, uncertainty, losses)
    assert torch.allclose(found, 1 / (6 * losses), rtol=1e-3)


def test_uncertainty_of_negative_losses_stops_at_its_bound():
    # The published codes' log variance falls for ever here. -0.025 per update reach -10 in 400 updates; e^10 / (2 T).
    uncertainty = ready("uncertainty", 2)
    found = weights_after(500, uncertainty, [-5, 1])
    assert float(found[0]) == pytest.approx(math.exp(10) / 4, rel=1e-12)
    assert float(found[1]) == pytest.approx(0.25, rel=1e-6)
    # It comes back, slowly, when the losses do.
    found = weights_after(500, uncertainty, [1, 1])
    assert float(found[0]) < 0.5 * math.exp(10) / 4


# ---- imtl_l


def test_imtl_l_by_hand():
    # s = 0: weights 1 / T. Slopes L - 1 = (1, -0.5): Adam steps -0.025 and +0.025 in s.
    imtl_l = ready("imtl_l", 2)
    assert torch.equal(weights(imtl_l, [2, 0.5]), tensor(0.5, 0.5))
    assert torch.allclose(weights(imtl_l, [2, 0.5]), tensor(-0.025, 0.025).exp() / 2, rtol=1e-6)


def test_imtl_l_brings_losses_to_one_size():
    losses = tensor(0.1, 1, 5)
    imtl_l = ready("imtl_l", 3)
    found = weights_after(1200, imtl_l, losses)
    assert torch.allclose(3 * found * losses, torch.ones(3).double(), rtol=1e-3)
    assert torch.allclose(found, weights(ready("scale_invariant", 3), losses), rtol=1e-3)


def test_imtl_l_of_losses_that_are_not_positive_comes_to_rest():
    # They count as 1e-8: e^s -> 1e8, that is s -> 18.4, 0.025 per update.
    imtl_l = ready("imtl_l", 2)
    found = weights_after(1200, imtl_l, [-5, 0])
    assert torch.allclose(found, tensor(5e7, 5e7), rtol=0.01)


# ---- scale_invariant


def test_scale_invariant_by_hand():
    # 1 / (3 L).
    assert torch.allclose(weights(ready("scale_invariant", 3), [1, 2, 4]), tensor(1 / 3, 1 / 6, 1 / 12), rtol=1e-15)


def test_scale_invariant_counts_what_is_not_positive_as_a_hundred_millionth():
    assert torch.allclose(weights(ready("scale_invariant", 2), [0, -3]), tensor(5e7, 5e7), rtol=1e-12)


@profile
@given(exponents=st.lists(st.floats(-6, 6), min_size=4, max_size=4))
def test_scale_invariant_direction_does_not_depend_on_the_units_of_the_losses(exponents):
    units = tensor(*(10**exponent for exponent in exponents))
    jacobian, losses = gaussian(4, 6), gaussian(4, 1)[:, 0].exp()
    found = make("scale_invariant")(units[:, None] * jacobian, losses=units * losses)
    assert torch.allclose(found, make("scale_invariant")(jacobian, losses=losses), rtol=1e-10)


# ---- dwa


def test_dwa_by_hand():
    # Window 2. Means (3, 4), then (1.5, 4): ratios 0.5 and 1, over the temperature 2.
    dwa = ready("dwa", 2, window=2)
    for losses in ([2, 4], [4, 4], [1, 3]):
        assert torch.equal(weights(dwa, losses), tensor(0.5, 0.5))
    assert torch.allclose(weights(dwa, [2, 5]), torch.softmax(tensor(0.25, 0.5), 0), rtol=1e-14)
    # The windows slide: means (2.5, 3.5), then (2, 6).
    assert torch.allclose(weights(dwa, [2, 7]), torch.softmax(tensor(0.4, 6 / 7), 0), rtol=1e-14)


@profile
@given(exponents=st.lists(st.floats(-6, 6), min_size=3, max_size=3))
def test_dwa_weights_do_not_depend_on_the_units_of_the_losses(exponents):
    units = tensor(*(10**exponent for exponent in exponents))
    plain, scaled = ready("dwa", 3, window=2), ready("dwa", 3, window=2)
    for step in range(6):
        losses = gaussian(3, 1, step)[:, 0].exp()
        assert torch.allclose(weights(scaled, units * losses), weights(plain, losses), rtol=1e-10)


# ---- options


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("famo", "lr", 0.0),
        ("famo", "weight_decay", -1.0),
        ("famo", "min_loss", math.inf),
        ("uncertainty", "lr", math.nan),
        ("uncertainty", "max_log_variance", 0.0),
        ("uncertainty", "max_log_variance", 51.0),
        ("imtl_l", "lr", -0.1),
        ("dwa", "window", 0),
        ("dwa", "temperature", 0.0),
        ("graddrop", "leaks", (0.5, 1.1)),
        ("graddrop", "leaks", (-0.1,)),
        ("moco", "beta", 0.0),
        ("moco", "beta", 1.1),
        ("moco", "gamma", -1.0),
        ("moco", "rho", math.inf),
        ("db_mtl", "beta", 1.0),
        ("db_mtl", "beta_decay", -0.5),
    ],
)
def test_impossible_option_is_refused_by_name(name, option, value):
    with pytest.raises(ValueError, match=rf"^{option} must"):
        make(name, **{option: value})
