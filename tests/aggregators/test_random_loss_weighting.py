"""Random loss weighting."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrl.aggregators import make
from mtrl.aggregators.base import Need
from mtrl.aggregators.rlw import weights_from
from mtrl.aggregators.system import GradientSystem
from tests.aggregators.jacobians import gaussian


def draw(num_tasks: int, num_draws: int) -> torch.Tensor:
    aggregator = make("rlw")
    aggregator.setup(num_tasks, [torch.Size([1])], torch.device("cpu"))
    system = GradientSystem(num_tasks=num_tasks, generator=torch.Generator().manual_seed(0))
    return torch.stack([aggregator.aggregate(system).weights for _ in range(num_draws)])  # pyright: ignore[reportArgumentType]


def test_by_hand():
    # e^0 : e^log(3) = 1 : 3.
    normals = torch.tensor([1.0, 3.0], dtype=torch.float64).log()
    assert torch.allclose(weights_from(normals), torch.tensor([0.25, 0.75]).double(), rtol=1e-15)


def test_logarithms_of_the_ratios_are_differences_of_normal_numbers():
    # log w1 - log w2 = n1 - n2: mean 0, variance 2; 5 standard errors of 4000 draws.
    ratios = draw(3, 4000).log()
    differences = ratios[:, 0] - ratios[:, 1]
    assert abs(float(differences.mean())) <= 5 * (2 / 4000) ** 0.5
    assert abs(float(differences.var()) - 2) <= 5 * 2 * (2 / 4000) ** 0.5


@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(normals=st.lists(st.floats(-9, 9), min_size=1, max_size=50))
def test_another_task_leaves_the_ratios_of_the_others_alone(normals):
    # This takes the place of the contract's test with a zero row.
    normals = torch.tensor(normals, dtype=torch.float64)
    extended = weights_from(torch.cat([normals, torch.tensor([1.5]).double()]))
    assert torch.allclose(extended[:-1] / extended[:-1].sum(), weights_from(normals), rtol=1e-12)


def test_weights_are_positive_sum_to_one_and_change():
    found = draw(50, 20)
    assert (found > 0).all()
    assert torch.allclose(found.sum(1), torch.ones(20).double(), rtol=1e-12)
    assert not torch.equal(found[0], found[1])


def test_neither_losses_nor_gradients_are_looked_at():
    assert make("rlw").need == Need.LOSSES
    assert make("rlw")(gaussian(3, 5)).isfinite().all()
