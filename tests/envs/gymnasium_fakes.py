"""A user's module of Gymnasium environments: importing it registers them. Free of torch, as what runs in a worker."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiDiscrete

CLASSIC = "gymnasium.envs.classic_control"
LINE = Box(-1.0, 1.0, (1,), np.float32)


class Arm(gymnasium.Env):
    """Observes the action as it arrived and the step modulo 3; the reward is 100 * action[0, 0] + step.

    Solved at every second step; a second entry at its upper bound terminates.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, success_key: str = "success") -> None:
        self.action_space = Box(np.array([[-3.0, 0.0]]), np.array([[1.0, 10.0]]), dtype=np.float64)
        self.observation_space = Dict({"angles": Box(-10.0, 10.0, (1, 2), np.float64), "phase": Discrete(3, start=5)})
        self.success_key = success_key
        self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._obs(self.np_random.uniform(-1, 1, (1, 2))), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        info = {self.success_key: self.time % 2 == 0}
        return self._obs(action), 100 * action[0, 0] + self.time, bool(action[0, 1] >= 10), False, info

    def _obs(self, angles: np.ndarray) -> dict[str, Any]:
        return {"phase": 5 + self.time % 3, "angles": angles.copy()}


class Plain(gymnasium.Env):
    """Has the spaces it is told; stands still at 0."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, observation_space: gymnasium.Space = LINE, action_space: gymnasium.Space = LINE) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 0.0, False, False, {}


class Echo(Plain):
    """Observes the action as it arrived."""

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return action.copy(), 0.0, False, False, {}


class Unseeded(Plain):
    """Observes noise that no seed determines, from its second step on."""

    time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.time = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        noise = np.random.default_rng().uniform(-1, 1, 1) if self.time > 1 else np.zeros(1)
        return noise.astype(np.float32), 0.0, False, False, {}


class UnseededReset(Plain):
    """Begins with noise that no seed determines."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        _, info = super().reset(seed=seed, options=options)
        return np.random.default_rng().uniform(-1, 1, 1).astype(np.float32), info


class Broken(Plain):
    """Rewards with infinity."""

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), float("inf"), False, False, {}


class Failing(Plain):
    """Cannot be built."""

    def __init__(self) -> None:
        raise RuntimeError("no licence\nfound")


def _register(name: str, env_class: type[gymnasium.Env], max_episode_steps: int | None = 4, **kwargs: Any) -> None:
    gymnasium.register(name, f"{__name__}:{env_class.__name__}", max_episode_steps=max_episode_steps, kwargs=kwargs)


gymnasium.register("fakes/Pendulum-v0", f"{CLASSIC}:PendulumEnv", max_episode_steps=50)
gymnasium.register("fakes/Car-v0", f"{CLASSIC}:Continuous_MountainCarEnv", max_episode_steps=30)
_register("fakes/Arm-v0", Arm)
_register("fakes/OtherArm-v0", Arm, success_key="is_success")
_register("fakes/SilentArm-v0", Arm, success_key="distance")
_register("fakes/Echo-v0", Echo, max_episode_steps=100)
_register("fakes/Unseeded-v0", Unseeded)
_register("fakes/UnseededReset-v0", UnseededReset)
_register("fakes/Endless-v0", Plain, max_episode_steps=None)
_register("fakes/Broken-v0", Broken)
_register("fakes/Failing-v0", Failing)
_register("fakes/Steps-v0", Plain, action_space=Box(0, 3, (1,), np.int64))
_register("fakes/Unbounded-v0", Plain, action_space=Box(-np.inf, 1.0, (1,), np.float32))
_register("fakes/Keys-v0", Plain, action_space=MultiDiscrete([2, 3]))
_register("fakes/Web-v0", Plain, observation_space=Graph(LINE, None))
