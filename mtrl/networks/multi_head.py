"""A trunk that all tasks share and a linear head for each."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mtrl.interfaces import Parameters
from mtrl.networks.layers import hidden, init_hidden, init_output, output
from mtrl.networks.mlp import check_hidden_dims

PROBE = "probe"
"""Name of the addition to the trunk's output, among the private parameters."""


class MultiHead:
    """A shared trunk (the encoder) that does not know the task, and one private linear head per task."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """A shared trunk and a private linear head per task."""

        hidden_dims: tuple[int, ...] = (400, 400, 400)
        """Widths of the trunk's layers."""

        def __post_init__(self) -> None:
            """Check the widths."""
            check_hidden_dims(self.hidden_dims)

    def __init__(self, config: Config, *, input_dim: int, output_dim: int, num_tasks: int, output_bound: float) -> None:
        self.num_tasks = num_tasks
        self._dims = (input_dim, *config.hidden_dims)
        self._output_dim = output_dim
        self._output_bound = output_bound

    def init(self, generator: torch.Generator) -> tuple[Parameters, Parameters]:
        """Draw the trunk, then one head per task."""
        trunk = init_hidden(self._dims, generator)
        heads = [
            init_output(self._dims[-1], self._output_dim, self._output_bound, generator) for _ in range(self.num_tasks)
        ]
        return trunk, {name: torch.stack([head[name] for head in heads]) for name in heads[0]}

    def encode(self, shared: Parameters, inputs: Float[Tensor, "batch in"]) -> Float[Tensor, "batch hidden"]:
        """Evaluate the shared trunk."""
        return hidden(shared, inputs, len(self._dims) - 1)

    def head(self, private: Parameters, features: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch out"]:
        """Evaluate one task's head."""
        return output(private, features)

    def __call__(
        self,
        shared: Parameters,
        private: Parameters,
        inputs: Float[Tensor, "batch in"],
        task: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch out"]:
        """Evaluate the trunk and one task's head."""
        del task
        features = self.encode(shared, inputs)
        if PROBE in private:
            features = features + private[PROBE]
        return self.head(private, features)

    def probe(self, batch_size: int) -> Parameters:
        """Return zeros to add to the trunk's output, whose gradient is that of the representation."""
        return {PROBE: torch.zeros(self.num_tasks, batch_size, self._dims[-1])}
