"""Per-task ring buffers on the training device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from mtrl.interfaces import Batch, EnvSpec, Step
from mtrl.memory import free_bytes, to_device
from mtrl.reward_normalizer import RewardNormalizer
from mtrl.seeding import load_generator, torch_generator


@dataclass(frozen=True, kw_only=True)
class Config:
    """Experience replay."""

    capacity: int = 100_000
    """Transitions kept per task."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the transitions are kept; auto is the training device."""
    reward_normalization: Literal["none", "running"] = "none"
    """running: divide the rewards of every environment by a moving estimate of their deviation before they are
    stored."""

    def __post_init__(self) -> None:
        """Check the capacity."""
        if self.capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {self.capacity}")


class Replay:
    """The newest `capacity` transitions of every task.

    A transition is one packed row of float32: obs, action, reward, next_obs, terminated. One gather per sample.
    """

    def __init__(
        self,
        spec: EnvSpec,
        capacity: int,
        device: torch.device,
        seed: int,
        normalize_reward: RewardNormalizer | None = None,
    ) -> None:
        """Allocate the storage; rewards are stored as they are, or normalised.

        Raises:
            ValueError: One vector step does not fit into the capacity, or the storage not into the device's free
                memory; the message says what would.
        """
        if capacity < spec.envs_per_task:  # their rows would overwrite each other in no certain order
            raise ValueError(f"replay.capacity must hold one vector step, {spec.envs_per_task} rows, got {capacity}")
        self.capacity = capacity
        self._normalize_reward = normalize_reward
        self._widths = (spec.obs_dim, spec.action_dim, 1, spec.obs_dim, 1)
        _check_memory(spec, capacity, device)
        # Not zeroed: the system hands out memory as rows are written, and no row is read before.
        self._storage = torch.empty(spec.num_tasks, capacity, sum(self._widths), device=device)
        self._rows = self._storage.view(-1, sum(self._widths))
        self._tasks = torch.arange(spec.num_tasks, device=device)[:, None]
        self._generator = torch_generator(seed, "replay", device=device)
        # Kept on the host: how many rows were ever added, per task. Row n lies in slot n % capacity.
        self._added = np.zeros(spec.num_tasks, dtype=np.int64)
        self._sizes = torch.zeros(spec.num_tasks, 1, dtype=torch.int64, device=device)
        """`size`, on the device."""
        self.largest_reward = np.zeros(spec.num_tasks)
        """Greatest absolute reward of each task that was ever stored, as it was stored."""

    @property
    def device(self) -> torch.device:
        """Return where the transitions are."""
        return self._storage.device

    @property
    def size(self) -> Int[np.ndarray, " task"]:
        """Number of stored transitions per task."""
        return np.minimum(self._added, self.capacity)

    def add(
        self, obs: Float[np.ndarray, "task env obs"], action: Float[np.ndarray, "task env action"], step: Step
    ) -> None:
        """Store the valid rows of one vector step, each under its task, over the oldest where full.

        Args:
            obs: What was acted on.
            action: What was done.
            step: What followed.
        """
        reward = self._normalize_reward(step.reward, step.valid) if self._normalize_reward else step.reward
        self.largest_reward = np.maximum(self.largest_reward, np.abs(np.where(step.valid, reward, 0)).max(1))
        rows = np.concatenate(
            [
                obs,
                action,
                reward[..., None],
                step.final_obs,
                step.terminated[..., None],
            ],
            axis=-1,
            dtype=np.float32,
        )
        task, _ = valid = np.nonzero(step.valid)
        ahead = np.cumsum(step.valid, axis=1)[valid] - 1
        slot = (self._added[task] + ahead) % self.capacity
        device = self._storage.device
        self._rows.index_copy_(0, to_device(task * self.capacity + slot, device), to_device(rows[valid], device))
        self._count(step.valid.sum(1))

    def sample(self, batch_size: int) -> Batch:
        """Draw `batch_size` transitions of every task, uniformly and with replacement, independently per task.

        Raises:
            ValueError: A task has no transition yet.
        """
        if not self._added.all():
            raise ValueError(f"task {int(self._added.argmin())} has no transition to sample from")
        device = self._storage.device
        num_tasks = len(self._added)
        # float64: float32 has too few bits for uniform indices into large buffers.
        uniform = torch.rand(num_tasks, batch_size, generator=self._generator, device=device, dtype=torch.float64)
        rows = self._storage[self._tasks, (uniform * self._sizes).long()]
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
        """Return everything but the rows: their numbers, their sizes and the random stream."""
        return {
            "added": torch.from_numpy(self._added.copy()),
            "capacity": self.capacity,
            "row_bytes": self.row_bytes,
            "generator": self._generator.get_state(),
            "largest_reward": self.largest_reward.copy(),
            **({"reward": self._normalize_reward.state_dict()} if self._normalize_reward else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result; the rows that are `live` then must be written before anything else is done.

        Raises:
            ValueError: The state is of other tasks, features or capacity.
        """
        found = (len(state["added"]), state["capacity"], state["row_bytes"])
        own = (len(self._added), self.capacity, self.row_bytes)
        if found != own:
            names = "(tasks, capacity, bytes of a row)"
            raise ValueError(f"a replay of {names} = {found} does not fit into one of {own}")
        if self._normalize_reward:
            self._normalize_reward.load_state_dict(state["reward"])
        self._added[:] = 0
        self._count(state["added"].numpy())
        self.largest_reward = state["largest_reward"].copy()
        load_generator(self._generator, state["generator"])

    def streams(self) -> list[torch.Generator]:
        """Return the random stream that samples are drawn with."""
        return [self._generator]

    def _count(self, added: Int[np.ndarray, " task"]) -> None:
        """Count further rows."""
        before = self.size
        self._added += added
        if (self.size != before).any():
            self._sizes.copy_(to_device(self.size[:, None], self._sizes.device))

    @property
    def row_bytes(self) -> int:
        """Size of a transition."""
        return self._storage.shape[-1] * self._storage.element_size()

    def live(self) -> list[range]:
        """Return per task the numbers of the transitions that are stored, counted from the task's first ever."""
        return [
            range(added - size, added) for added, size in zip(self._added.tolist(), self.size.tolist(), strict=True)
        ]

    def read(self, task: int, rows: range) -> Iterator[memoryview]:
        """Return the bytes of stored transitions, given by their numbers; on the CPU nothing is copied."""
        for part in self._contiguous(rows):
            yield self._storage[task, part.start % self.capacity :][: len(part)].cpu().numpy().data

    def write(self, task: int, rows: range, content: memoryview) -> None:
        """Store the bytes of transitions under their numbers; those that are not `live` are left out."""
        live = self.live()[task]
        for part in self._contiguous(range(max(rows.start, live.start), rows.stop)):
            first = (part.start - rows.start) * self.row_bytes
            values = torch.frombuffer(content[first : first + len(part) * self.row_bytes], dtype=self._storage.dtype)
            self._storage[task, part.start % self.capacity :][: len(part)] = values.view(len(part), -1)

    def _contiguous(self, rows: range) -> Iterator[range]:
        """Cut rows where the ring ends."""
        while rows:
            length = self.capacity - rows.start % self.capacity
            yield rows[:length]
            rows = rows[length:]


def make_replay(config: Config, spec: EnvSpec, device: torch.device, seed: int) -> Replay:
    """Build the replay that the options ask for; their device has been resolved to `device`."""
    normalizer = RewardNormalizer(spec) if config.reward_normalization == "running" else None
    return Replay(spec, config.capacity, device, seed, normalizer)


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
