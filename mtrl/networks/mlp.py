"""One network for all tasks, told the task by a one-hot vector."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mtrl.interfaces import Parameters
from mtrl.networks.layers import hidden, init_hidden, init_output, output

WIDEST = 2**16
"""Units of a layer. Two such layers alone have 17 GB of weights between them."""


class MLP:
    """A multi-layer perceptron on the inputs and the one-hot task. All parameters are shared."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """One perceptron for all tasks; the task enters as a one-hot vector."""

        hidden_dims: tuple[int, ...] = (400, 400, 400)
        """Widths of the hidden layers."""
        task_input: Literal["one_hot", "none"] = "one_hot"
        """How the task enters; none: tasks can only be told by their observations, as in published numbers on the first
        version of Meta-World."""

        def __post_init__(self) -> None:
            """Check the widths."""
            check_hidden_dims(self.hidden_dims)

    def __init__(self, config: Config, *, input_dim: int, output_dim: int, num_tasks: int, output_bound: float) -> None:
        self.num_tasks = num_tasks
        self._is_told = config.task_input == "one_hot"
        self._dims = (input_dim + num_tasks * self._is_told, *config.hidden_dims)
        self._output_dim = output_dim
        self._output_bound = output_bound

    def init(self, generator: torch.Generator) -> tuple[Parameters, Parameters]:
        """Draw the shared parameters; there are no private ones."""
        layers = init_hidden(self._dims, generator)
        return layers | init_output(self._dims[-1], self._output_dim, self._output_bound, generator), {}

    def __call__(
        self,
        shared: Parameters,
        private: Parameters,
        inputs: Float[Tensor, "batch in"],
        task: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch out"]:
        """Evaluate the network."""
        del private
        return output(shared, hidden(shared, self._told(inputs, task), len(self._dims) - 1))

    def _told(self, inputs: Float[Tensor, "batch in"], task: Int[Tensor, " batch"]) -> Float[Tensor, "batch told"]:
        """Return the inputs with the task beside them, where the network is told it."""
        if not self._is_told:
            return inputs
        one_hot = task[:, None] == torch.arange(self.num_tasks, device=task.device)
        return torch.cat([inputs, one_hot.to(inputs.dtype)], dim=1)


def check_hidden_dims(hidden_dims: tuple[int, ...]) -> None:
    """Raise a ValueError unless there is at least one layer and all widths are positive and can be allocated."""
    if not hidden_dims or min(hidden_dims) < 1:
        raise ValueError(f"hidden_dims must be one or more positive widths, got {hidden_dims}")
    if max(hidden_dims) > WIDEST:
        raise ValueError(f"hidden_dims must be widths of at most {WIDEST}, got {hidden_dims}")
