"""What sets a method apart, in a few words: what it declares, and what is found by using it."""

import copy
from typing import NamedTuple

import torch

from mtrl.aggregators.base import Aggregator, Invariance, Need, apply
from mtrl.aggregators.system import GradientSystem, Rows, gramian

_SEEN = {
    Need.LOSSES: (),
    Need.REPRESENTATION: ("representation",),
    Need.GRAMIAN: ("Gramian",),
    Need.ROWS: ("rows",),
    Need.LOOKAHEAD: ("Gramian", "lookahead"),
}

_ROWS = ((1.0, 0.5, 0.0), (-0.5, 1.0, 0.2), (0.3, -0.8, 1.0))
_LOSSES = ((1.0, 2.0, 3.0), (2.0, 1.0, 5.0))


class Traits(NamedTuple):
    """The facts about one method with its options."""

    need: Need
    looks_at_losses: bool
    observes: bool
    needs_positive_losses: bool
    keeps_state: bool
    is_random: bool
    invariances: frozenset[Invariance]

    def needs(self) -> str:
        """Say what the method must be given."""
        losses = "losses > 0" if self.needs_positive_losses else "losses"
        has_losses = self.looks_at_losses or self.need == Need.LOSSES
        seen = [*_SEEN[self.need], *[losses] * has_losses, *["losses after"] * self.observes]
        return ", ".join(seen)

    def memory(self) -> str:
        """Say whether the method keeps state, and whether it draws random numbers."""
        return ", ".join(["state"] * self.keeps_state + ["random"] * self.is_random) or "-"

    def invariant_to(self) -> str:
        """Say whose scales do not turn the direction."""
        return ", ".join(entry.value for entry in Invariance if entry in self.invariances) or "-"


def examine(method: Aggregator) -> Traits:
    """Find out about a method that has seen no update yet, on copies of it."""
    method = copy.deepcopy(method)
    method.setup(len(_ROWS), [torch.Size([len(_ROWS[0])])], torch.device("cpu"))
    return Traits(
        need=method.need,
        looks_at_losses=_looks_at_losses(method),
        observes=method.observes,
        needs_positive_losses=method.needs_positive_losses,
        keeps_state=_keeps_state(method),
        is_random=_is_random(method),
        invariances=method.invariances,
    )


def _looks_at_losses(method: Aggregator) -> bool:
    """Other losses lead elsewhere, or it refuses to work without."""
    first, second = (_update(copy.deepcopy(method), losses) for losses in _LOSSES)
    if not all(torch.equal(one, other) for one, other in zip(first, second, strict=True)):
        return True
    try:
        _update(copy.deepcopy(method), None)
    except ValueError:
        return True
    return False


def _keeps_state(method: Aggregator) -> bool:
    used = copy.deepcopy(method)
    _update(used, _LOSSES[0])
    before = method.state_dict()
    return any(not torch.equal(before[name], value) for name, value in used.state_dict().items())


def _is_random(method: Aggregator) -> bool:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    _update(copy.deepcopy(method), _LOSSES[0], generator)
    return not torch.equal(before, generator.get_state())


def _update(method: Aggregator, losses: tuple[float, ...] | None, generator: torch.Generator | None = None) -> Rows:
    """Let the method see one update, and return the direction."""
    rows = (torch.tensor(_ROWS, dtype=torch.float64),)
    values = None if losses is None else torch.tensor(losses, dtype=torch.float64)
    products = gramian(rows)
    system = GradientSystem(
        num_tasks=len(_ROWS),
        losses=values,
        gramian=products,
        rows=rows,
        generator=generator or torch.Generator().manual_seed(0),
        losses_ahead=None if values is None else lambda steps: values - steps @ products,
    )
    return apply(method.aggregate(system), rows)
