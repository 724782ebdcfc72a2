"""Learning: draw a batch, update the agent, and see to it that nothing is learned from broken numbers."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtrl.interfaces import Agent, Metrics
from mtrl.loggers import COMPLAINT_SECONDS
from mtrl.nonfinite import NonFiniteError, NonFiniteUpdates, keep_update
from mtrl.precision import products_in
from mtrl.profiling import UpdateProfile
from mtrl.recording import Repeated
from mtrl.replay import Replay
from mtrl.schedule import Config
from mtrl.timing import Stopwatch
from mtrl.transference import Average


class Learner:
    """Updates an agent from its replay, and knows how often it did and what it found."""

    def __init__(
        self,
        config: Config,
        agent: Agent,
        replay: Replay,
        *,
        batch_size: int,
        device: torch.device,
        task_names: Sequence[str],
        run_dir: Path,
        stopwatch: Stopwatch,
        warn: Callable[[str], None],
    ) -> None:
        """Join agent and replay; batches have `batch_size` transitions of every task and come to `device`."""
        self.config = config
        self.agent, self.replay = agent, replay
        self.update_count = 0
        self.skipped_updates = 0
        self._batch_size, self._device = batch_size, device
        self._task_names, self._run_dir = task_names, run_dir
        self._stopwatch = stopwatch
        self._warn, self._next_complaint = warn, 0.0
        self._metrics: Metrics = {}
        self._batch: Any = None
        self._streams_before: list[Tensor] = []
        """Of the last update, and before it."""
        self._nonfinite = NonFiniteUpdates(task_names, device)
        self._learn = Repeated(
            "the update",
            self._compute,
            tensors=lambda: [*agent.tensors(), *self._nonfinite.tensors()],
            streams=lambda: [*agent.streams(), *replay.streams()],
            device=device,
            is_recorded=config.compile == "auto" and _can_be_recorded(config, device, replay),
            warn=warn,
        )
        self._transference = Average()
        self._profile: UpdateProfile | None = None

    def trace(self, profile: UpdateProfile) -> None:
        """Tell the profile of every update from now on, until `close`."""
        self._profile = profile

    def close(self) -> None:
        """End what traces the updates."""
        if self._profile is not None:
            self._profile.close()

    def update(self) -> None:
        """Learn once.

        Raises:
            NonFiniteError: A loss, gradient or temperature is not finite, and the run is not told to skip.
        """
        self._streams_before = [stream.get_state() for stream in self.agent.streams()]
        with self._stopwatch("update"), products_in(self.config.matmul_precision):
            is_traced = self._profile is not None and self._profile.is_due
            self._batch, self._metrics = self._compute() if is_traced else self._learn()
        self.update_count += 1
        if self._device.type == "cpu":  # elsewhere asking costs a synchronisation, so it waits for the next record
            self.check_finite()
        every = self.config.transference_every
        if every and self.update_count % every == 0:
            with self._stopwatch("transference"):
                self._transference.add(self.agent.transference(self._diagnostic_batch()))
        if self._profile is not None:
            self._profile.after_update()

    def _compute(self) -> tuple[Any, Metrics]:
        """Draw a batch and learn from it; nothing but tensors takes part."""
        with self._stopwatch("replay"):
            batch = self._sample()
        metrics = self.agent.update(batch)
        self._nonfinite.note(metrics)
        return batch, metrics

    def check_finite(self) -> None:
        """Raise or count if any update since the last check met a number that is not finite.

        Raises:
            NonFiniteError: The run is not told to skip.
        """
        count, found = self._nonfinite.pop()
        self.skipped_updates += count
        if not count:
            return
        folder = self._run_dir / "nonfinite"
        remark = keep_update(
            folder,
            self.update_count,
            self.agent,
            self._streams_before,
            self._batch,
            self._metrics,
            self._task_names,
        )
        if self.config.on_nonfinite != "skip":
            raise NonFiniteError(f"{found} (--on-nonfinite skip leaves such updates out)\n{remark}")
        if time.monotonic() >= self._next_complaint:
            self._next_complaint = time.monotonic() + COMPLAINT_SECONDS
            self._warn(f"{found}; left out, {self.skipped_updates:,} updates so far")

    def report(self) -> dict[str, float | np.ndarray]:
        """Return what the last update and a closer look at the agent found, for a record; waits for the device.

        Before the first update that is nothing but counts.

        Raises:
            NonFiniteError: See `check_finite`.
        """
        values: dict[str, float | np.ndarray] = {}
        if self._metrics:
            self.check_finite()
            values |= _to_numpy({k: v for k, v in self._metrics.items() if not k.endswith("_nonfinite")})
            values |= _to_numpy(self.agent.diagnose(self._diagnostic_batch()) | self._transference.pop())
        return values | {"skipped_updates": float(self.skipped_updates)}

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs beside agent and replay."""
        return {
            "update_count": self.update_count,
            "skipped_updates": self.skipped_updates,
            "metrics": self._metrics,
            "transference": self._transference.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        self.update_count, self.skipped_updates = state["update_count"], state["skipped_updates"]
        self._metrics = {name: value.to(self._device) for name, value in state["metrics"].items()}
        self._nonfinite = NonFiniteUpdates(self._task_names, self._device, self.update_count)
        self._transference.load_state_dict(state["transference"], self._device)

    def _sample(self) -> Any:
        batch = self.replay.sample(self._batch_size)
        # Towards a GPU its stream keeps the order; the CPU would read what has not arrived.
        overlaps = self._device.type == "cuda"
        return type(batch)(*(leaf.to(self._device, non_blocking=overlaps) for leaf in batch))

    def _diagnostic_batch(self) -> Any:
        """Draw a batch without moving the replay's random stream."""
        with self.replay.unchanged_stream():
            return self._sample()


def _can_be_recorded(config: Config, device: torch.device, replay: Replay) -> bool:
    """Say whether a record holds all there is: a graph no work of the CPU, a list no `unrounded_products`."""
    if replay.device.type != device.type:
        return False
    return device.type == "cuda" or config.matmul_precision == "float32"


def _to_numpy(metrics: Metrics) -> dict[str, float | np.ndarray]:
    return {name: value.double().cpu().numpy() if value.dim() else float(value) for name, value in metrics.items()}
