"""No method asks the device for a value: on the device "meta", whose tensors have none, asking raises."""

import pytest
import torch

from mtrl.aggregators import REGISTRY, make, names
from mtrl.aggregators.base import Aggregator, apply
from mtrl.aggregators.eigen import eigh
from mtrl.aggregators.solvers import is_known
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
    assert is_known(flag) is False


@pytest.mark.parametrize(("name", "options"), WAYS)
def test_no_method_asks(name, options):
    aggregator = make(name, **options)
    aggregator.setup(NUM_TASKS, [torch.Size([4, 3]), torch.Size([])], META)
    direction = update(aggregator)
    assert [(leaf.shape, leaf.device) for leaf in direction] == [((4, 3), META), ((), META)]


def test_the_ways_through_the_methods_are_spelt_as_they_are():
    for name, options in WAYS:
        assert options.keys() <= resolve(REGISTRY, "aggregator", name).Config.__dataclass_fields__.keys()


def test_no_diagnosis_asks():
    rows = (torch.empty(NUM_TASKS, 4, 3, device=META), torch.empty(NUM_TASKS, device=META))
    products = gramian(rows)
    assert condition_number(products).device == cosines(products).device == META
    assert [part.shape for part in eigh(products)] == [(3,), (3, 3)]
    assert measure(rows)["condition_number"].device == META
