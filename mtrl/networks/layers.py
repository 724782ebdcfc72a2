"""The layers all architectures are made of, as parameters by name and plain functions."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mtrl.interfaces import Parameters


def init_hidden(dims: Sequence[int], generator: torch.Generator) -> Parameters:
    """Draw the hidden layers of widths `dims[1:]` on an input of width `dims[0]`: He-uniform weights, zero biases.

    Source: He et al., "Delving Deep into Rectifiers", 2015, equation 10.
    """
    parameters = {}
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(dims)):
        weight = nn.init.kaiming_uniform_(torch.empty(fan_out, fan_in), nonlinearity="relu", generator=generator)
        parameters[f"hidden.{index}.weight"] = weight
        parameters[f"hidden.{index}.bias"] = torch.zeros(fan_out)
    return parameters


def init_output(fan_in: int, fan_out: int, bound: float, generator: torch.Generator) -> Parameters:
    """Draw an output layer uniform in +-bound, weights and biases, so that first outputs are close to zero."""
    return {
        "output.weight": torch.empty(fan_out, fan_in).uniform_(-bound, bound, generator=generator),
        "output.bias": torch.empty(fan_out).uniform_(-bound, bound, generator=generator),
    }


def hidden(parameters: Parameters, x: Float[Tensor, "batch in"], num_layers: int) -> Float[Tensor, "batch hidden"]:
    """Apply the hidden layers, ReLU after each."""
    for index in range(num_layers):
        x = _linear(parameters, f"hidden.{index}", x).relu_()
    return x


def output(parameters: Parameters, x: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch out"]:
    """Apply the output layer."""
    return _linear(parameters, "output", x)


def _linear(parameters: Parameters, name: str, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
    """Return a new tensor, which the caller may write to.

    Mapped over tasks, `nn.functional.linear` takes the same product and the same sum, but copies in between.
    """
    return (x @ parameters[f"{name}.weight"].T).add_(parameters[f"{name}.bias"])
