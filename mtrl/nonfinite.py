"""Numbers that are not finite: noticed where they arrive, and named."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mtrl.interfaces import Metrics, Step

_SUFFIX = "_nonfinite"


class NonFiniteError(RuntimeError):
    """A number is not finite. The message names quantity and task; nothing has been learned from it or stored."""


class NonFiniteActionError(NonFiniteError):
    """The policy chose an action that is not finite: the agent itself is broken and not worth saving."""


def check_action(action: Float[np.ndarray, "task env action"], task_names: Sequence[str]) -> None:
    """Raise if an action is not finite.

    Raises:
        NonFiniteActionError: It names task, environment and component.
    """
    _check("action", action, task_names, NonFiniteActionError)


def check_obs(obs: Float[np.ndarray, "task env obs"], task_names: Sequence[str]) -> None:
    """Raise if an observation to act on is not finite.

    Raises:
        NonFiniteError: It names task, environment and component.
    """
    _check("observation", obs, task_names, NonFiniteError)


def check_step(step: Step, task_names: Sequence[str]) -> None:
    """Raise if a reward or observation is not finite; in rows that are not valid only the next observation counts.

    Raises:
        NonFiniteError: It names quantity, task and environment.
    """
    _check("reward", np.where(step.valid, step.reward, 0), task_names, NonFiniteError)
    _check("observation", np.where(step.valid[..., None], step.final_obs, 0), task_names, NonFiniteError)
    check_obs(step.obs, task_names)


def _check(quantity: str, values: np.ndarray, task_names: Sequence[str], error: type[NonFiniteError]) -> None:
    is_bad = ~np.isfinite(values)
    if not is_bad.any():
        return
    task, env, *component = first = tuple(np.argwhere(is_bad)[0])
    others = int(is_bad.reshape(*is_bad.shape[:2], -1).any(-1).sum()) - 1
    raise error(
        f"{quantity} of task {task_names[task]!r}, environment {env}"
        + (f", component {component[0]}" if component else "")
        + f" is {values[first]}"
        + (f" ({others} more environments have such a one)" if others else "")
    )


class NonFiniteUpdates:
    """Counts the updates that met a number that is not finite, on their device: asking it would wait for it."""

    def __init__(self, task_names: Sequence[str]) -> None:
        self._task_names = task_names
        self._start()

    def _start(self) -> None:
        self._flags: dict[str, Tensor] = {}
        self._count: Tensor | int = 0
        self._first: Tensor | int = 0

    def note(self, metrics: Metrics, number: int) -> None:
        """Take in what the update of that number, counted from 1, found."""
        is_bad: Tensor | None = None
        for quantity, flags in _flagged(metrics):
            self._flags[quantity] = self._flags[quantity] | flags if quantity in self._flags else flags
            is_bad = flags.any() if is_bad is None else is_bad | flags.any()
        if is_bad is not None:
            self._first = self._first + number * (is_bad & (self._first == 0))
            self._count = self._count + is_bad.long()

    def pop(self) -> tuple[int, str]:
        """Return how many updates since the last call met such numbers, and in words which; waits for the device."""
        count = int(self._count)
        if count == 0:
            return 0, ""
        first = f"update {int(self._first):,}"
        updates = first if count == 1 else f"{count:,} updates (the first: {first})"
        where = "; ".join(self._name(quantity, flags) for quantity, flags in self._flags.items() if flags.any())
        self._start()
        return count, f"not finite in {updates}: {where}"

    def _name(self, quantity: str, flags: Tensor) -> str:
        return f"{quantity} of {', '.join(self._task_names[int(task)] for task in flags.nonzero().flatten().tolist())}"


def _flagged(metrics: Metrics) -> Iterator[tuple[str, Tensor]]:
    """Tell losses from gradients: a gradient is to blame where the loss is finite."""
    for name, flags in metrics.items():
        if name.endswith(_SUFFIX):
            component = name.removesuffix(_SUFFIX)
            loss = metrics.get(f"{component}_loss")
            if loss is None:
                yield component, flags
            else:
                yield f"{component} loss", flags & ~loss.isfinite()
                yield f"{component} gradient", flags & loss.isfinite()
