"""One learned component of an agent: a network, its optimiser, and the aggregator its task gradients go through."""

import copy
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import vmap

from mtrl.agents.adam import Adam
from mtrl.agents.flat import FlatParameters, flatten
from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.host import unless
from mtrl.aggregators.system import GradientSystem, gramian
from mtrl.gradients import (
    TaskLoss,
    Update,
    aggregate,
    look_ahead,
    losses_at,
    measure,
    representation_gramian,
    task_gradients,
)
from mtrl.interfaces import EncoderNetwork, Metrics, Network, Parameters
from mtrl.seeding import copy_generator, load_generator, torch_generator
from mtrl.timing import Stopwatch
from mtrl.transference import StepKind, transference


@runtime_checkable
class MakeNetwork(Protocol):
    """Builds an architecture of given sizes."""

    def __call__(self, *, input_dim: int, output_dim: int, num_tasks: int, output_bound: float) -> Network:
        """Return the network."""
        ...


class Component:
    """A network whose shared parameters follow the aggregated direction and whose private ones their own task."""

    def __init__(
        self,
        name: str,
        network: Network,
        aggregator: Aggregator,
        *,
        num_tasks: int,
        lr: float,
        adam_eps: float,
        max_grad_norm: float,
        device: torch.device,
        seed: int,
        stopwatch: Stopwatch,
    ) -> None:
        """Draw the parameters on the CPU, so that a seed means the same on every device."""
        self.name = name
        self.network = network
        self.aggregator = aggregator
        self.max_grad_norm = max_grad_norm
        self.stopwatch = stopwatch
        shared, private = network.init(torch_generator(seed, name))
        self.parameters = FlatParameters(shared, private, device)
        self.shared, self.private = self.parameters.shared, self.parameters.private
        self._num_shared = sum(leaf.numel() for leaf in shared.values())
        self.adam = Adam(self.parameters.flat, lr, adam_eps)
        self.generator = torch_generator(seed, "agent", f"{name}_aggregator", device=device)
        if aggregator.need == Need.REPRESENTATION and not self.probe(1):
            raise ValueError(f"{name}: the aggregator needs a network with encoder and heads, such as multi_head")
        aggregator.setup(num_tasks, [leaf.shape for leaf in shared.values()], device)
        self._buffers_before = [buffer.clone() for buffer in aggregator.buffers()]
        """The aggregator's state before the last `descend`."""

    @property
    def leaves(self) -> list[Tensor]:
        """All parameters, shared ones first."""
        return [*self.shared.values(), *self.private.values()]

    def probe(self, batch_size: int) -> Parameters:
        """Return the zeros whose gradient is that of the representation; empty where the network has no encoder."""
        if not isinstance(self.network, EncoderNetwork):
            return {}
        device = self.leaves[0].device
        return {name: torch.zeros_like(leaf, device=device) for name, leaf in self.network.probe(batch_size).items()}

    def __call__(self, inputs: Float[Tensor, "task batch in"], task: Tensor) -> Float[Tensor, "task batch out"]:
        """Evaluate the network for all tasks."""
        return vmap(self.network, in_dims=(None, 0, 0, 0))(self.shared, self.private, inputs, task)

    def descend(
        self, loss: TaskLoss, frozen: Any, may_step: Bool[Tensor, ""]
    ) -> tuple[Update, Metrics, Bool[Tensor, ""]]:
        """Take one step on the aggregated gradients of `loss`, clipped, where they and all before are finite.

        Args:
            loss: The loss of one task, a function of this component's parameters.
            frozen: Everything else the losses depend on, the task on axis 0.
            may_step: False keeps everything as it is: something before was not finite.

        Returns:
            What was found, the same as metrics, and whether the step was taken.
        """
        for buffer, before in zip(self.aggregator.buffers(), self._buffers_before, strict=True):
            before.copy_(buffer)
        update = aggregate(
            loss,
            self.shared,
            self.private,
            frozen,
            self.aggregator,
            self.generator,
            self.stopwatch,
            self._probe_for(frozen),
            self._displace,
        )
        gradient, norm, private_norms = self._clipped(update)
        # The norm may overflow where every task's gradient is finite: then all are flagged.
        nonfinite = update.nonfinite | (~norm.isfinite() & ~update.nonfinite.any())
        if private_norms is not None:
            nonfinite = nonfinite | ~private_norms.isfinite()
        is_finite = may_step & ~nonfinite.any()
        self.adam.step(gradient, is_finite)
        if self.aggregator.observes:
            self.aggregator.observe(losses_at(loss, self.shared, self.private, frozen))
        self._restore_buffers(is_finite)  # one bad batch must not stay in a moving average
        metrics = {
            f"{self.name}_loss": update.losses,
            f"{self.name}_nonfinite": nonfinite,
            f"direction_norm/{self.name}": norm,
        }
        if update.weights is not None:
            metrics[f"{self.name}_weight"] = update.weights
        return update, metrics, is_finite

    def _clipped(self, update: Update) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the flat gradient, and the norms before it was clipped: of the direction, and of each task's own part.

        Each is clipped by itself. Under one norm for all, a task with large losses would shorten the shared direction
        and the heads of others, whatever the aggregator does.
        """
        gradient = flatten([*update.shared.values(), *update.private.values()])
        direction = gradient[: self._num_shared]
        norm = direction.norm()
        direction.mul_(self._clip(norm))
        if not update.private:
            return gradient, norm, None
        _, private = self.parameters.views(gradient)
        norms = torch.cat([leaf[:, None].flatten(1) for leaf in private.values()], dim=1).norm(dim=1)
        factors = self._clip(norms)
        for leaf in private.values():
            leaf.mul_(_along(factors, leaf))
        return gradient, norm, norms

    def tensors(self) -> list[Tensor]:
        """Return all that `descend` changes, itself."""
        return [*self.adam.tensors(), *self.aggregator.buffers()]

    def copy_learned(self) -> list[Tensor]:
        """Return copies of parameters and optimiser, to be put back by `undo`."""
        return [tensor.clone() for tensor in self.adam.tensors()]

    def undo(self, before: list[Tensor], keep: Bool[Tensor, ""]) -> None:
        """Take the last `descend` back, with what `copy_learned` returned before it, except where `keep`."""
        self._restore_buffers(keep)
        unless(keep, _restore, self.adam.tensors(), before)

    def _restore_buffers(self, keep: Bool[Tensor, ""]) -> None:
        """Make the aggregator forget the last `descend`, except where `keep`."""
        unless(keep, _restore, list(self.aggregator.buffers()), self._buffers_before)

    def measure(self, loss: TaskLoss, frozen: Any) -> Metrics:
        """Measure the gradient system of `loss`, before and after a copy of the aggregator has seen it."""
        gradients = task_gradients(loss, self.shared, self.private, frozen)
        rows = tuple(gradients.shared.values())
        look = partial(look_ahead, loss, self.shared, self.private, frozen, gradients)
        probe = self._probe_for(frozen)
        products = representation_gramian(loss, self.shared, self.private, frozen, probe) if probe else gramian(rows)
        system = GradientSystem(
            num_tasks=len(gradients.losses),
            losses=gradients.losses,
            gramian=torch.where(products.isfinite().all(), products, 0.0),  # solvers raise on NaN
            rows=rows,
            generator=copy_generator(self.generator),
            losses_ahead=look(),
            losses_after_step=look(self._displace),
        )
        found = measure(rows, copy.deepcopy(self.aggregator).aggregate(system))
        per_task = {f"{self.name}_{key}": value for key, value in found.items() if value.dim() > 0}
        scalars = {f"{key}/{self.name}": value for key, value in found.items() if value.dim() == 0}
        return per_task | scalars

    def transference(self, loss: TaskLoss, frozen: Any, step: StepKind) -> Float[Tensor, "task task"]:
        """Measure how far one task's step lowers each task's loss; private parameters stay where they are.

        Args:
            loss: The loss of one task, a function of this component's parameters.
            frozen: Everything else the losses depend on, the task on axis 0.
            step: Whose: that of the optimiser as it stands, clipped, or of plain gradient descent with its step size.

        Returns:
            Z[source, target], see `mtrl.transference`.
        """
        gradients = task_gradients(loss, self.shared, self.private, frozen)
        if step == "optimizer":
            moves = self._displace(gradients.shared)
        else:
            moves = {name: self.adam.lr * leaf for name, leaf in gradients.shared.items()}
        return transference(loss, self.shared, self.private, frozen, moves)

    def _displace(self, directions: Parameters, /) -> Parameters:
        """Return what the optimiser's next step would subtract from the shared parameters, for several directions."""
        squares = torch.stack([leaf.square().flatten(1).sum(1) for leaf in directions.values()]).sum(0)
        clip = self._clip(squares.sqrt())
        clipped = {name: leaf * _along(clip, leaf) for name, leaf in directions.items()}
        mean, square = (self.parameters.views(self.adam.state[name])[0] for name in ("exp_avg", "exp_avg_sq"))
        return {name: self.adam.moves(mean[name], square[name], leaf) for name, leaf in clipped.items()}

    def _clip(self, norm: Tensor) -> Tensor:
        """Return the factors that bring gradients of these norms to the greatest one allowed."""
        return (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)  # 1e-6 as in torch's clip_grad_norm_

    def _probe_for(self, frozen: Any) -> Parameters:
        """Return the probe for a batch, whose first tensor is (task, batch, ...), where the aggregator needs it."""
        return self.probe(frozen[0].shape[1]) if self.aggregator.need == Need.REPRESENTATION else {}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimiser, aggregator and random stream."""
        return {
            "shared": self.shared,
            "private": self.private,
            "optimizer": self.adam.state,
            "aggregator": self.aggregator.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result, of which `check_state` has seen names and shapes."""
        copy_into(self.shared, state["shared"])
        copy_into(self.private, state["private"])
        copy_into(self.adam.state, state["optimizer"])
        self.aggregator.load_state_dict(state["aggregator"])
        load_generator(self.generator, state["generator"])


def _along(factors: Float[Tensor, " first"], leaf: Tensor) -> Tensor:
    """Return factors for the first axis of a leaf in a shape that multiplies it."""
    return factors.view(-1, *[1] * (leaf.dim() - 1))


def _restore(keep: Bool[Tensor, ""], tensors: list[Tensor], before: list[Tensor]) -> None:
    """Write the earlier values into tensors, except where `keep`."""
    for tensor, earlier in zip(tensors, before, strict=True):
        torch.where(keep, tensor, earlier, out=tensor)


@torch.no_grad()
def copy_into(own: Parameters, saved: Parameters) -> None:
    """Write the saved values into the tensors that exist, which optimisers and captured work refer to."""
    for name, leaf in own.items():
        leaf.copy_(saved[name])


def check_state(own: Any, saved: Any, where: str = "state") -> None:
    """Raise a ValueError unless `saved` has the names and the tensor shapes of `own`, before anything is copied.

    Aggregator states are left to torch's own strict loading; random streams, the only bytes, have states of another
    length on another kind of device.
    """
    if isinstance(own, Tensor):
        if own.dtype != torch.uint8 and own.shape != saved.shape:
            raise ValueError(f"{where} has shape {tuple(own.shape)} here and {tuple(saved.shape)} in the state")
    elif isinstance(own, dict):
        if own.keys() != saved.keys():
            raise ValueError(f"{where} differs between agent and state in {sorted(own.keys() ^ saved.keys())}")
        for name, value in own.items():
            if name != "aggregator":
                check_state(value, saved[name], f"{where}.{name}")
