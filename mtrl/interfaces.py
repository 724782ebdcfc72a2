"""Data types and protocols that every layer shares.

Axis words of all shape annotations (axis 0 is the task in every tensor that crosses a module border):

    task    tasks trained together (T)             env     copies of one task stepped side by side
    batch   transitions per task in one update     obs     features of one observation
    action  features of one action                 param   flattened shared parameters (P)
    info    further numbers told about one step    height, width   of a picture, in pixels

`terminated` stops the bootstrap; `truncated` never does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Parameters = dict[str, Tensor]
"""Parameter tensors by name. Private ones carry the task on axis 0."""

Metrics = dict[str, Tensor]
"""Detached tensors by name: a scalar, (task,) or (task, task). They stay on their device until somebody logs them."""


class Batch(NamedTuple):
    """Transitions of all tasks, the same number of each. A NamedTuple, so that `torch.func.vmap` maps its axis 0."""

    obs: Float[Tensor, "task batch obs"]
    action: Float[Tensor, "task batch action"]
    reward: Float[Tensor, "task batch"]
    next_obs: Float[Tensor, "task batch obs"]
    """The true successor of `obs`, also where an episode ended (never the first observation of the next one)."""
    terminated: Float[Tensor, "task batch"]
    """1 where the successor has no value, else 0; 0 where the episode was only cut by the time limit."""
    task: Int[Tensor, "task batch"]
    """Index of the task each row belongs to."""


class Step(NamedTuple):
    """What one vector step returns. The arrays belong to the environment and are valid until its next call."""

    obs: Float[np.ndarray, "task env obs"]
    """Act on this next: where an episode ended, the first observation of the next one (SAME_STEP autoreset)."""
    final_obs: Float[np.ndarray, "task env obs"]
    """Bootstrap from this: the true successor of the observation acted on, in every row."""
    reward: Float[np.ndarray, "task env"]
    terminated: Bool[np.ndarray, "task env"]
    truncated: Bool[np.ndarray, "task env"]
    success: Bool[np.ndarray, "task env"]
    """Whether this very step counts as solved; an episode is solved when any of its steps is."""
    goal: Int[np.ndarray, "task env"]
    """Index of the goal of the episode this step belongs to (not of the one that may start after it)."""
    valid: Bool[np.ndarray, "task env"]
    """False where the row is no real transition (worker restarted, simulation unstable): never store it. It is
    `truncated` too, and a new episode has begun."""
    info: Float[np.ndarray, "task env info"]
    """Further numbers about this very step, float64, named by `EnvSpec.info_names`; 0 where not `valid`."""


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """The shape of a vectorised multi-task environment."""

    task_names: tuple[str, ...]
    envs_per_task: int
    obs_dim: int
    action_dim: int
    """Actions are in [-1, 1] in every component."""
    max_episode_steps: int
    """Of the task with the longest episodes."""
    num_goals: int
    """Goals per task; `reset(goal)` takes indices below it."""
    info_names: tuple[str, ...] = ()
    """What the last axis of `Step.info` holds; nothing unless asked for."""
    cameras: tuple[str, ...] = ()
    """From where `render` can look, the default first; none where there is nothing to see."""
    steps_per_second: int = 0
    """Pace of the simulated world, at which pictures of every step play in real time; 0 where it has none."""

    @property
    def num_tasks(self) -> int:
        """Number of tasks T."""
        return len(self.task_names)


class BrokenEnvError(RuntimeError):
    """The environments have failed for good: they cannot be stepped any more.

    What `get_state` returns from then on lacks the episodes under way, and `set_state` begins new ones.
    """


@runtime_checkable
class VectorEnv(Protocol):
    """All copies of all tasks, stepped together."""

    @property
    def spec(self) -> EnvSpec:
        """Names and sizes."""
        ...

    @property
    def worker_restarts(self) -> int:
        """Processes of environments replaced so far, because they died, hung or raised; 0 where there are none."""
        ...

    def reset(self, goal: Int[np.ndarray, "task env"] | None = None) -> Float[np.ndarray, "task env obs"]:
        """Start a new episode everywhere, with the given goals or with goals from each environment's own stream."""
        ...

    def step(self, action: Float[np.ndarray, "task env action"]) -> Step:
        """Advance every environment by one action; an ended episode is followed at once by a new one.

        Raises:
            ValueError: An action is not finite; the message names task and environment.
            BrokenEnvError: The environments have failed for good.
        """
        ...

    def step_async(self, action: Float[np.ndarray, "task env action"]) -> None:
        """Begin a step, as `step` does it. Until `step_wait` nothing else can be asked of the environments.

        Raises:
            ValueError: An action is not finite; the message names task and environment.
        """
        ...

    def step_wait(self) -> Step:
        """Finish the step that was begun.

        Raises:
            BrokenEnvError: The environments have failed for good.
        """
        ...

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future, as plain types and arrays."""
        ...

    def set_state(self, state: dict[str, Any]) -> Float[np.ndarray, "task env obs"]:
        """Restore what `get_state` returned; return the observations to act on next."""
        ...

    def render(
        self,
        camera: str | None = None,
        *,
        width: int = 480,
        height: int = 480,
        tasks: Sequence[str] | None = None,
        envs: Sequence[int] | None = None,
    ) -> UInt8[np.ndarray, "task env height width 3"]:
        """Return pictures, upright, of what the next step starts from. Changes nothing.

        Args:
            camera: One of `spec.cameras`, the first by default.
            width: In pixels.
            height: In pixels.
            tasks: Names of the tasks to look at, all by default; axis 0 of the result has their order.
            envs: Indices of each task's environments to look at, all by default; axis 1 has their order.

        Raises:
            NotImplementedError: There is nothing to see in these environments.
            ValueError: There is no such camera, task or environment, or a size is below 1.
            RuntimeError: This machine cannot render; the message says what it needs. The environment lives on.
        """
        ...

    def close(self) -> None:
        """Free processes and shared memory. Safe to call twice."""
        ...


@runtime_checkable
class Agent(Protocol):
    """A learner over all tasks at once."""

    def act(self, obs: Float[Tensor, "task env obs"]) -> Float[Tensor, "task env action"]:
        """Sample exploring actions."""
        ...

    def act_deterministic(self, obs: Float[Tensor, "task env obs"]) -> Float[Tensor, "task env action"]:
        """Return the actions to be evaluated. Draws no randomness."""
        ...

    def seed_actions(self, seed: int) -> None:
        """Start the random stream of exploring actions anew."""
        ...

    def act_stream(self) -> torch.Generator:
        """Return the random stream of exploring actions."""
        ...

    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch. No logging, no I/O, no synchronisation with the device.

        A metric NAME_nonfinite, (task,) bool, tells which tasks' losses or gradients of the component NAME were not
        finite; such an update must have changed nothing but random streams. It is counted and never logged.
        """
        ...

    def diagnose(self, batch: Batch) -> Metrics:
        """Measure the gradient systems on `batch` without learning from it or touching any state."""
        ...

    def transference(self, batch: Batch) -> Metrics:
        """Measure on `batch` how much one task's step helps another, (task, task); touches no state."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to continue exactly."""
        ...

    def streams(self) -> list[torch.Generator]:
        """Return the random streams that updates draw from."""
        ...

    def tensors(self) -> list[Tensor]:
        """Return all tensors that updates change, themselves: from these and the streams an update can be repeated."""
        ...

    def state_with_streams(self, streams: Sequence[Tensor]) -> dict[str, Any]:
        """Return `state_dict` with other states of the `streams`.

        With those from before an update that was not finite it is the state before it: nothing else has changed.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result. Strict: raises on missing, unexpected or misshapen entries."""
        ...


@runtime_checkable
class Network(Protocol):
    """An architecture, written for ONE task: parameters in, outputs out, no state of its own.

    Built as `Class(config, input_dim=..., output_dim=..., num_tasks=..., output_bound=...)`.
    """

    def init(self, generator: torch.Generator) -> tuple[Parameters, Parameters]:
        """Draw initial parameters: the shared ones, and the private ones with the task on axis 0."""
        ...

    def __call__(
        self,
        shared: Parameters,
        private: Parameters,
        inputs: Float[Tensor, "batch in"],
        task: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch out"]:
        """Evaluate one task's network: `private` holds that task's slice, without the task axis."""
        ...


@runtime_checkable
class EncoderNetwork(Network, Protocol):
    """An architecture of an encoder, which holds all shared parameters, and private heads on what it returns."""

    def probe(self, batch_size: int) -> Parameters:
        """Return zeros, (task, batch, hidden), to pass among the private parameters; empty where there is no encoder.

        The network adds them to the encoder's output, so that their gradient is that of the representation.
        """
        ...
