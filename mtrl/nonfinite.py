"""Numbers that are not finite: noticed where they arrive, and named."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.interfaces import Agent, Batch, Metrics, Step

_SUFFIX = "_nonfinite"

_UPDATES_KEPT = 3
"""Most updates a run keeps to be repeated: the first ones tell most, and a disk is finite."""


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


def check_state(state: Any, where: str = "the agent's state") -> None:
    """Raise if a tensor in a tree of dicts, lists and tuples is not finite: it is not worth saving. Waits for it.

    Raises:
        NonFiniteError: It names the tensor.
    """
    if isinstance(state, Tensor):
        if not state.isfinite().all():
            raise NonFiniteError(f"{where} is not finite")
    elif isinstance(state, dict):
        for name, value in state.items():
            check_state(value, f"{where}, {name}")
    elif isinstance(state, list | tuple):
        for value in state:
            check_state(value, where)


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

    def __init__(self, task_names: Sequence[str], device: torch.device, update_count: int = 0) -> None:
        """Begin after so many updates, whose metrics are on `device`."""
        self._task_names = task_names
        self._flags: dict[str, Tensor] = {}
        self._number = torch.tensor(update_count, device=device)
        """Of the last update, counted from 1."""
        self._first, self._count = torch.zeros_like(self._number), torch.zeros_like(self._number)

    def tensors(self) -> list[Tensor]:
        """Return all tensors that `note` changes, themselves."""
        return [self._number, self._first, self._count, *self._flags.values()]

    def note(self, metrics: Metrics) -> None:
        """Take in what the next update found."""
        self._number += 1
        found = dict(_flagged(metrics))
        for quantity, flags in found.items():
            if quantity not in self._flags:
                self._flags[quantity] = torch.zeros_like(flags)
            self._flags[quantity].logical_or_(flags)
        if found:
            is_bad = torch.stack(list(found.values())).any()
            self._first += self._number * (is_bad & (self._first == 0))
            self._count += is_bad

    def pop(self) -> tuple[int, str]:
        """Return how many updates since the last call met such numbers, and in words which; waits for the device."""
        count = int(self._count)
        if count == 0:
            return 0, ""
        first = f"update {int(self._first):,}"
        updates = first if count == 1 else f"{count:,} updates (the first: {first})"
        where = "; ".join(self._name(quantity, flags) for quantity, flags in self._flags.items() if flags.any())
        for leaf in (self._first, self._count, *self._flags.values()):
            leaf.zero_()
        return count, f"not finite in {updates}: {where}"

    def _name(self, quantity: str, flags: Tensor) -> str:
        return f"{quantity} of {', '.join(self._task_names[int(task)] for task in flags.nonzero())}"


def keep_update(
    folder: Path,
    number: int,
    agent: Agent,
    streams: Sequence[Tensor],
    batch: Batch,
    metrics: Metrics,
    task_names: Sequence[str],
) -> str:
    """Write what repeats the agent's last update, where it was not finite: its state before, and the batch.

    The file, NUMBER.pt, holds plain types and tensors; of one run the first few such updates are kept.

    Args:
        folder: Where the run keeps them.
        number: Of the update.
        agent: As the update left it.
        streams: States of the agent's random streams before it.
        batch: Of that update.
        metrics: Of that update.
        task_names: By the tasks' index.

    Returns:
        What to do with it, or why there is none, for the person.
    """
    if not _found_in(metrics, task_names):
        return "that update cannot be repeated: others followed before it was noticed; see --log-every"
    kept = list(folder.glob("*.pt"))
    if len(kept) >= _UPDATES_KEPT:
        return f"{folder} holds {len(kept)} earlier updates to repeat and takes no more"
    file = folder / f"{number}.pt"
    partial = folder / f".partial-{file.name}"
    try:
        folder.mkdir(exist_ok=True)
        state = agent.state_with_streams(streams)
        torch.save({"task_names": list(task_names), "batch": batch._asdict(), "agent": state}, partial)
        partial.replace(file)
    except (OSError, RuntimeError) as problem:  # torch's word for a full disk is the latter
        partial.unlink(missing_ok=True)
        return f"what repeats that update could not be written: {problem}"
    return f"repeat that update: python scripts/reproduce_update.py {file}"


def repeat_update(file: Path, agent: Agent, device: torch.device) -> tuple[Metrics, str]:
    """Repeat an update that was not finite, from what `keep_update` wrote.

    Args:
        file: RUN/nonfinite/UPDATE.pt.
        agent: One built as in that run; it is left as it was before the update, but for the random streams.
        device: The agent's. On another kind of device than the run's the noise is another.

    Returns:
        The update's metrics, and in words what is not finite in it; nothing where all is.
    """
    content = torch.load(file, map_location=device, weights_only=True)
    agent.load_state_dict(content["agent"])
    metrics = agent.update(Batch(**content["batch"]))
    return metrics, _found_in(metrics, content["task_names"])


def _found_in(metrics: Metrics, task_names: Sequence[str]) -> str:
    """Return in words what was not finite in one update; nothing where all was. Waits for the device."""
    update = NonFiniteUpdates(task_names, next(iter(metrics.values())).device)
    update.note(metrics)
    return update.pop()[1].partition(": ")[2]


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
