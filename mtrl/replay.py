"""Per-task ring buffers on the training device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from mtrl.interfaces import Batch, EnvSpec, Step
from mtrl.memory import free_bytes
from mtrl.seeding import load_generator, torch_generator


@dataclass(frozen=True, kw_only=True)
class Config:
    """Experience replay."""

    capacity: int = 100_000
    """Transitions kept per task."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the transitions are kept; auto is the training device."""

    def __post_init__(self) -> None:
        """Check the capacity."""
        if self.capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {self.capacity}")


class Replay:
    """The newest `capacity` transitions of every task.

    A transition is one packed row of float32: obs, action, reward, next_obs, terminated. One gather per sample.
    """

    def __init__(self, spec: EnvSpec, capacity: int, device: torch.device, seed: int) -> None:
        """Allocate the storage.

        Raises:
            ValueError: The storage does not fit into the device's free memory; the message says what would.
        """
        self.capacity = capacity
        self._widths = (spec.obs_dim, spec.action_dim, 1, spec.obs_dim, 1)
        _check_memory(spec, capacity, device)
        # Not zeroed: the system hands out memory as rows are written, and no row is read before.
        self._storage = torch.empty(spec.num_tasks, capacity, sum(self._widths), device=device)
        self._tasks = torch.arange(spec.num_tasks, device=device)[:, None]
        self._generator = torch_generator(seed, "replay", device=device)
        # Kept on the host: where to write next, and how many rows are filled, per task.
        self._position = np.zeros(spec.num_tasks, dtype=np.int64)
        self._size = np.zeros(spec.num_tasks, dtype=np.int64)

    @property
    def size(self) -> np.ndarray:
        """Number of stored transitions per task."""
        return self._size.copy()

    def add(
        self, obs: Float[np.ndarray, "task env obs"], action: Float[np.ndarray, "task env action"], step: Step
    ) -> None:
        """Store the valid rows of one vector step, each under its task, over the oldest where full.

        Args:
            obs: What was acted on.
            action: What was done.
            step: What followed.
        """
        rows = np.concatenate(
            [
                obs,
                action,
                step.reward[..., None],
                step.final_obs,
                step.terminated[..., None],
            ],
            axis=-1,
            dtype=np.float32,
        )
        task, _ = valid = np.nonzero(step.valid)
        ahead = np.cumsum(step.valid, axis=1)[valid] - 1
        slot = (self._position[task] + ahead) % self.capacity
        device = self._storage.device
        index = torch.from_numpy(task).to(device), torch.from_numpy(slot).to(device)
        self._storage[index] = torch.from_numpy(rows[valid]).to(device)
        added = step.valid.sum(1)
        self._position = (self._position + added) % self.capacity
        self._size = np.minimum(self._size + added, self.capacity)

    def sample(self, batch_size: int) -> Batch:
        """Draw `batch_size` transitions of every task, uniformly and with replacement, independently per task.

        Raises:
            ValueError: A task has no transition yet.
        """
        if not self._size.all():
            raise ValueError(f"task {int(self._size.argmin())} has no transition to sample from")
        device = self._storage.device
        num_tasks = len(self._size)
        size = torch.from_numpy(self._size).to(device)[:, None]
        # float64: float32 has too few bits for uniform indices into large buffers.
        uniform = torch.rand(num_tasks, batch_size, generator=self._generator, device=device, dtype=torch.float64)
        rows = self._storage[self._tasks, (uniform * size).long()]
        obs, action, reward, next_obs, terminated = rows.split(self._widths, dim=-1)
        return Batch(
            obs, action, reward.squeeze(-1), next_obs, terminated.squeeze(-1), self._tasks.expand(-1, batch_size)
        )

    @contextmanager
    def unchanged_stream(self) -> Iterator[None]:
        """Put the random stream back after the body, so that looking at a sample changes nothing."""
        state = self._generator.get_state()
        try:
            yield
        finally:
            self._generator.set_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the filled part of the storage, the positions and the random stream."""
        filled = int(self._size.max())
        return {
            "storage": self._storage[:, :filled].contiguous(),
            "position": torch.from_numpy(self._position.copy()),
            "size": torch.from_numpy(self._size.copy()),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result.

        Raises:
            ValueError: The state is of other tasks, features or capacity.
        """
        storage = state["storage"]
        tasks, filled, width = storage.shape
        if (tasks, width) != (self._storage.shape[0], self._storage.shape[2]) or filled > self.capacity:
            raise ValueError(f"replay of shape {tuple(storage.shape)} does not fit into {tuple(self._storage.shape)}")
        self._storage[:, :filled] = storage.to(self._storage.device)
        self._position = state["position"].numpy().copy()
        self._size = state["size"].numpy().copy()
        load_generator(self._generator, state["generator"])


def storage_bytes(spec: EnvSpec, capacity: int) -> int:
    """Return the memory that the storage of `capacity` transitions per task takes, in bytes."""
    float_bytes = 4
    return spec.num_tasks * capacity * (2 * spec.obs_dim + spec.action_dim + 2) * float_bytes


def _check_memory(spec: EnvSpec, capacity: int, device: torch.device) -> None:
    """Raise a ValueError that says what would fit, unless the storage does."""
    needed, free = storage_bytes(spec, capacity), free_bytes(device)
    if needed <= free:
        return
    fitting = max(0, free) // storage_bytes(spec, 1)
    advice = f"--replay.capacity {fitting} would fit" if fitting else "not one transition per task would fit"
    raise ValueError(
        f"the replay needs {needed / 2**30:.1f} GiB and {device} has {free / 2**30:.1f} GiB free; "
        + advice
        + (", or --replay.device cpu" if device.type == "cuda" else "")
    )
