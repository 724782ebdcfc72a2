"""Off the CPU no method asks for a value, except where its problem is solved on the CPU: once an update.

On the device "meta", whose tensors have no values, asking raises.
"""

from typing import Any

import pytest
import torch

from mtrl.aggregators import REGISTRY, make, names
from mtrl.aggregators.base import Aggregator, apply
from mtrl.aggregators.host import Mend, Solver, example, on_host, recorded_by
from mtrl.aggregators.system import GradientSystem, condition_number, cosines, gramian
from mtrl.gradients import measure
from mtrl.registry import resolve

META = torch.device("meta")
NUM_TASKS = 3
OPTIONS = {
    "aligned": [{"scale_mode": "median"}, {"scale_mode": "rmse"}],
    "cagrad": [{"solver": "sgd"}],
    "dibs": [{"num_steps": 3}],
    "fairgrad": [{"solver": "sgd"}, {"max_norm": None}],
    "gradnorm": [{"alpha": 1.0}],
    "gradvac": [{"target_update": "adjusted"}],
    "it_mtl": [{"candidates": "leave_one_out"}, {"combined": ("pcgrad", "nash")}],
    "nash": [{"update_every": 10}],
    "sdmgrad": [{"solver": "sgd"}],
}
"""Other ways through a method than the default."""
WAYS = [(name, options) for name in names() for options in [{}, *OPTIONS.get(name, [])]]


SOLVED_ON_HOST = {
    *("aligned", "aligned_ub", "cagrad", "config", "dualproj", "fairgrad", "gradvac", "imtl_g"),
    *("mgda", "nash", "pcgrad", "sdmgrad", "upgrad"),
}


class Visits:
    """Counts the visits to the CPU, without going there."""

    def __init__(self) -> None:
        self.count = 0

    def call(self, solver: Solver, arguments: tuple[Any, ...]) -> Any:
        self.count += 1
        result = example(solver, arguments)
        return tuple(leaf.to(META) for leaf in result) if isinstance(result, tuple) else result.to(META)

    def unless(self, flag: torch.Tensor, mend: Mend, arguments: tuple[Any, ...]) -> None:
        mend(flag, *arguments)


def update(aggregator: Aggregator) -> tuple[torch.Tensor, ...]:
    rows = (torch.empty(NUM_TASKS, 4, 3, device=META), torch.empty(NUM_TASKS, device=META))
    losses = torch.empty(NUM_TASKS, device=META)
    system = GradientSystem(num_tasks=NUM_TASKS, losses=losses, gramian=gramian(rows), rows=rows)
    direction = apply(aggregator.aggregate(system), rows)
    if aggregator.observes:
        aggregator.observe(losses)
    return direction


def test_asking_is_noticed():
    flag = torch.empty((), dtype=torch.bool, device=META)
    with pytest.raises(RuntimeError, match="meta"):
        bool(flag)
    with pytest.raises(NotImplementedError, match="meta"):
        torch.ones(3, device=META).nonzero()


@pytest.mark.parametrize(("name", "options"), WAYS)
def test_no_method_asks_but_those_that_are_solved_on_the_cpu_and_they_once(name, options):
    aggregator = make(name, **options)
    aggregator.setup(NUM_TASKS, [torch.Size([4, 3]), torch.Size([])], META)
    visits = Visits()
    with recorded_by(visits):
        direction = update(aggregator)
    assert [(leaf.shape, leaf.device) for leaf in direction] == [((4, 3), META), ((), META)]
    assert visits.count == (2 if "combined" in options else name in SOLVED_ON_HOST)


def test_the_ways_through_the_methods_are_spelt_as_they_are():
    for name, options in WAYS:
        assert options.keys() <= resolve(REGISTRY, "aggregator", name).Config.__dataclass_fields__.keys()


def test_no_diagnosis_asks_but_for_its_condition_number():
    rows = (torch.empty(NUM_TASKS, 4, 3, device=META), torch.empty(NUM_TASKS, device=META))
    products = gramian(rows)
    visits = Visits()
    with recorded_by(visits):
        assert condition_number(products).device == cosines(products).device == META
        assert measure(rows)["condition_number"].device == META
    assert visits.count == 2


def test_what_is_solved_on_the_cpu_comes_back():
    seen = []

    @on_host
    def halve(matrix: torch.Tensor, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((matrix.device.type, factor))
        return matrix / 2, matrix.sum(0)

    assert torch.equal(halve(torch.ones(2, 2), 3.0)[1], torch.full((2,), 2.0))
    with pytest.raises(NotImplementedError, match="meta"):  # which has nothing to give
        halve(torch.ones(2, 2, device=META), 3.0)
    assert seen == [("cpu", 3.0)]
