"""Parameters by name that lie one behind the other in one tensor, so that one kernel reads or writes all of them."""

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.interfaces import Parameters


class FlatParameters:
    """Shared and private parameters as views of one flat tensor."""

    def __init__(self, shared: Parameters, private: Parameters, device: torch.device) -> None:
        """Copy the parameters to the device."""
        self._shapes = [{name: leaf.shape for name, leaf in part.items()} for part in (shared, private)]
        self.flat = flatten([*shared.values(), *private.values()]).to(device)
        self.shared, self.private = self.views(self.flat)

    def views(self, flat: Float[Tensor, " param"]) -> tuple[Parameters, Parameters]:
        """Return what lies in a tensor like `flat`, by name: of the shared parameters and of the private ones."""
        sizes = [shape.numel() for part in self._shapes for shape in part.values()]
        pieces = iter(flat.split(sizes))
        shared, private = ({name: next(pieces).view(shape) for name, shape in part.items()} for part in self._shapes)
        return shared, private


def flatten(leaves: list[Tensor]) -> Float[Tensor, " param"]:
    """Return a new tensor with all numbers of the leaves, in their order."""
    return torch.cat([leaf.reshape(-1) for leaf in leaves])
