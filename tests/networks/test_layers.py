"""Initial ranges and the layer formulas."""

import math

import pytest
import torch

from mtrl.networks.layers import hidden, init_hidden, init_output, output


def test_hidden_weights_fill_the_he_uniform_range():
    # Uniform on +-sqrt(6 / fan_in): fan_in 24 -> +-0.5, fan_in 200 -> +-0.1732.
    parameters = init_hidden((24, 200, 300), torch.Generator().manual_seed(0))
    for index, bound in enumerate((0.5, math.sqrt(6 / 200))):
        weight = parameters[f"hidden.{index}.weight"]
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.99 * bound
        # Standard deviation of a uniform variable: bound / sqrt 3; 4800 draws leave an error of about 1 %.
        assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert abs(weight.mean()) < 0.03 * bound


def test_hidden_shapes_are_out_by_in_and_biases_zero():
    parameters = init_hidden((3, 5, 7), torch.Generator())
    assert {name: tuple(leaf.shape) for name, leaf in parameters.items()} == {
        "hidden.0.weight": (5, 3),
        "hidden.0.bias": (5,),
        "hidden.1.weight": (7, 5),
        "hidden.1.bias": (7,),
    }
    assert not parameters["hidden.0.bias"].any()
    assert not parameters["hidden.1.bias"].any()


def test_output_layer_is_uniform_within_its_bound():
    parameters = init_output(400, 50, 3e-3, torch.Generator().manual_seed(0))
    for leaf in parameters.values():
        assert 0.9 * 3e-3 < leaf.abs().max() <= 3e-3
        assert leaf.min() < 0 < leaf.max()


def test_hidden_layers_by_hand():
    # x = (1, -2): W0 x + b0 = (1 - 2 + 0.5, 2 + 2) = (-0.5, 4) -> relu (0, 4); W1: 3 * 0 - 1 * 4 + 5 = 1 -> relu 1.
    parameters = {
        "hidden.0.weight": torch.tensor([[1.0, 1.0], [2.0, -1.0]]),
        "hidden.0.bias": torch.tensor([0.5, 0.0]),
        "hidden.1.weight": torch.tensor([[3.0, -1.0]]),
        "hidden.1.bias": torch.tensor([5.0]),
    }
    x = torch.tensor([[1.0, -2.0]])
    assert torch.equal(hidden(parameters, x, 1), torch.tensor([[0.0, 4.0]]))
    assert torch.equal(hidden(parameters, x, 2), torch.tensor([[1.0]]))


def test_output_layer_is_linear():
    # (1, 2) . (3, -4) + 0.5 = -4.5: no activation.
    parameters = {"output.weight": torch.tensor([[3.0, -4.0]]), "output.bias": torch.tensor([0.5])}
    assert torch.equal(output(parameters, torch.tensor([[1.0, 2.0]])), torch.tensor([[-4.5]]))


def test_layers_mapped_over_tasks_are_linear_maps_bit_for_bit_and_write_to_nothing_they_are_given():
    generator = torch.Generator().manual_seed(0)
    parameters = init_hidden((4, 6, 5), generator) | init_output(5, 2, 0.1, generator)
    parameters["hidden.0.bias"] += 0.5
    x = torch.randn(3, 7, 4, generator=generator)
    given = {name: leaf.clone() for name, leaf in {**parameters, "x": x}.items()}

    def plain(x: torch.Tensor) -> torch.Tensor:
        for name in ("hidden.0", "hidden.1"):
            x = torch.nn.functional.linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"]).relu()
        return torch.nn.functional.linear(x, parameters["output.weight"], parameters["output.bias"])

    found = torch.func.vmap(lambda x: output(parameters, hidden(parameters, x, 2)))(x)
    assert torch.equal(found, torch.func.vmap(plain)(x))
    assert all(torch.equal(leaf, given[name]) for name, leaf in {**parameters, "x": x}.items())
