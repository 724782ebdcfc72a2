"""What a method declares not to turn its direction does not; where the shipped methods declare nothing, it does."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtrl.aggregators import make, names
from mtrl.aggregators.base import Aggregator, Invariance
from tests.aggregators.jacobians import gaussian
from tests.aggregators.strategies import few, jacobians

GRADIENTS, LOSSES = Invariance.GRADIENT_SCALES, Invariance.LOSS_SCALES
NUM_UPDATES = 3

_SHIPPED = """
    aligned aligned_ub cagrad config db_mtl dibs dualproj dwa fairgrad famo graddrop gradnorm gradvac imtl_g imtl_l
    it_mtl mean mgda moco nash pcgrad rlw scale_invariant sdmgrad sum uncertainty upgrad"""
SHIPPED = frozenset(_SHIPPED.split())
"""Of these it is known that what they do not declare does not hold. A new method may declare nothing."""

OPTIONS = {
    "fairgrad": {"alpha": 1.0},
    "dibs": {"num_steps": 5, "step_size": 0.5},
    "nash": {"update_every": 2},
    "famo": {"min_loss": 0.5},
    "db_mtl": {"beta": 0.5, "beta_decay": 0.5},
}
"""Other options, some of which change what is declared."""
METHODS = [(name, {}) for name in names()] + list(OPTIONS.items())


def declaring(invariance: Invariance) -> pytest.MarkDecorator:
    found = [(name, options) for name, options in METHODS if invariance in make(name, **options).invariances]
    return pytest.mark.parametrize(
        ("name", "options"), found, ids=[f"{name}{options or ''}" for name, options in found]
    )


def directions(method: Aggregator, rows: list[Tensor], losses: list[Tensor]) -> Tensor:
    """Return the direction of every update as unit vectors; a method that looks again sees the next losses."""
    found = []
    for jacobian, values, after in zip(rows, losses, [*losses[1:], losses[0]], strict=True):
        found.append(method(jacobian, values, torch.Generator().manual_seed(0)))
        if method.observes:
            method.observe(after)
    return torch.nn.functional.normalize(torch.stack(found), dim=1)


def turned(name: str, options: dict, jacobian: Tensor, gradient_scales: list[Tensor], loss_scales: Tensor) -> float:
    """Return by how much the scales turn the directions of some updates: the longest difference of unit vectors."""
    num_tasks = len(jacobian)
    rows = [
        jacobian + 0.1 * gaussian(num_tasks, jacobian.shape[1], seed) * jacobian.norm(dim=1)[:, None]
        for seed in range(NUM_UPDATES)
    ]
    losses = [1 + gaussian(num_tasks, 1, seed)[:, 0].abs() for seed in range(NUM_UPDATES)]
    plain = directions(make(name, **options), rows, losses)
    scaled = directions(
        make(name, **options),
        [(gradient * loss_scales)[:, None] * row for gradient, row in zip(gradient_scales, rows, strict=True)],
        [loss_scales * values for values in losses],
    )
    return float((scaled - plain).norm(dim=1).max())


def over_decades(num_tasks: int, exponents: list[float]) -> Tensor:
    return 10.0 ** torch.tensor(exponents[:num_tasks], dtype=torch.float64)


twelve_decades = st.lists(st.floats(-6, 6), min_size=10, max_size=10)
independent = jacobians(sizes=(2, 3, 10), decades=(0,), may_depend=False, may_vanish=False)


@declaring(GRADIENTS)
@few
@given(jacobian=independent, exponents=st.tuples(*[twelve_decades] * NUM_UPDATES))
def test_scales_of_gradients_do_not_turn_the_direction(name, options, jacobian, exponents):
    num_tasks = len(jacobian)
    scales = [over_decades(num_tasks, entry) for entry in exponents]
    assert turned(name, options, jacobian, scales, torch.ones(num_tasks).double()) <= 1e-6


@declaring(LOSSES)
@few
@given(jacobian=independent, exponents=twelve_decades)
def test_scales_of_losses_do_not_turn_the_direction(name, options, jacobian, exponents):
    # Up to 1e12: a loss counts as 1e-8 larger than it is in some methods, so that losses near that have a scale.
    scales = 1e6 * over_decades(len(jacobian), exponents)
    assert turned(name, options, jacobian, [torch.ones_like(scales)] * NUM_UPDATES, scales) <= 1e-6


EXAMPLES = (
    torch.tensor([[1.0, 0.5, 0.0], [-0.5, 1.0, 0.2], [0.3, -0.8, 1.0]], dtype=torch.float64),
    torch.tensor([[1.0, 0.0, 0.1], [1.0, 0.1, 0.0], [-1.0, 0.9, 0.2]], dtype=torch.float64),
    torch.tensor([[1.0, 0.3, 0.0], [1.0, -0.3, 0.0], [1.0, 0.0, 0.05]], dtype=torch.float64),
)
SCALES = torch.tensor([1.0, 30.0, 0.01], dtype=torch.float64)
ORDERS = ([0, 1, 2], [1, 2, 0], [2, 0, 1])


@pytest.mark.parametrize("name", [name for name in names() if name in SHIPPED])
def test_what_is_not_declared_does_not_hold(name):
    ones = torch.ones(3, dtype=torch.float64)
    by_gradients = max(turned(name, {}, case, [SCALES[o] for o in ORDERS], ones) for case in EXAMPLES)
    by_losses = max(turned(name, {}, case, [ones] * NUM_UPDATES, SCALES) for case in EXAMPLES)
    kept = {GRADIENTS: by_gradients, LOSSES: by_losses}
    assert {entry for entry in Invariance if kept[entry] <= 0.01} == make(name).invariances, kept


def test_what_is_declared():
    both = set(Invariance)
    assert {name for name in SHIPPED if make(name).invariances == both} == {"config", "dibs", "nash"}
    assert {name for name in SHIPPED if make(name).invariances == {LOSSES}} == {"db_mtl", "famo", "scale_invariant"}
    assert {name for name in SHIPPED if make(name).invariances == {GRADIENTS}} == {"moco"}
    assert make("nash", update_every=2).invariances == {LOSSES}
    assert make("famo", min_loss=0.5).invariances == set()
    assert make("fairgrad", alpha=1.0).invariances == both


def test_kept_weights_turn_with_the_scales_of_gradients():
    scales = [SCALES[order] for order in ORDERS]
    assert turned("nash", {"update_every": 2}, EXAMPLES[0], scales, torch.ones(3).double()) > 0.01


def test_a_bound_of_the_losses_has_a_unit():
    assert turned("famo", {"min_loss": 0.5}, EXAMPLES[0], [torch.ones(3).double()] * NUM_UPDATES, SCALES) > 0.01


def test_imtl_g_keeps_the_line_and_not_its_end():
    plain, scaled = (make("imtl_g")(scale[:, None] * EXAMPLES[1]) for scale in (SCALES, SCALES[ORDERS[1]]))
    assert torch.nn.functional.cosine_similarity(plain, scaled, dim=0) == pytest.approx(-1)


def test_config_may_turn_around_where_gradients_depend_on_each_other():
    jacobian = torch.tensor([[1.0], [1.0], [-1.0]], dtype=torch.float64)
    scales = torch.tensor([1.0, 1.0, 10.0], dtype=torch.float64)
    assert make("config")(jacobian) > 0 > make("config")(scales[:, None] * jacobian)


@pytest.mark.parametrize("power", [1, 3, 0.5])
def test_increasing_transforms_of_losses_do_not_turn_what_keeps_under_gradient_scales_and_ignores_losses(power):
    # L -> L^power: gradient power L^(power - 1) g, another factor in every update.
    for name in ("dibs", "nash", "config"):
        for seed in range(3):
            jacobian, losses = gaussian(3, 8, seed), 1 + gaussian(3, 1, seed)[:, 0].abs()
            transformed = (power * losses ** (power - 1))[:, None] * jacobian
            found = [make(name)(rows) for rows in (jacobian, transformed)]
            assert torch.nn.functional.cosine_similarity(*found, dim=0) == pytest.approx(1, abs=1e-9)
