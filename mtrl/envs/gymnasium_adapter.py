"""Offer a `VectorEnv` of ours as a Gymnasium vector environment."""

import warnings
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector import VectorEnv as GymnasiumVectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, UInt8

from mtrl.interfaces import VectorEnv
from mtrl.registry import check_name


def as_gymnasium(
    env: VectorEnv,
    *,
    render_mode: Literal["rgb_array"] | None = None,
    camera: str | None = None,
    width: int = 480,
    height: int = 480,
) -> "GymnasiumAdapter":
    """Return `env` as a Gymnasium vector environment of task x env flat copies, ordered by task.

    Autoreset is SAME_STEP. Every step's info holds plain arrays: `final_obs` (the true successor in all rows),
    `success`, `task`, `goal` and `valid`, each with its Gymnasium mask (`_success`, ...); `_final_obs` marks the ended
    episodes. What `EnvSpec.info_names` names is there under these names, in float64, masked by `valid`; `success` stays
    boolean. Goals are chosen by `reset(options={"goal": array of shape (task, env)})`.

    Args:
        env: Closed by the adapter's `close`.
        render_mode: Whether `render()` returns pictures, one for each copy, or None.
        camera: One of `env.spec.cameras`, the first by default.
        width: Of the pictures, in pixels.
        height: Of the pictures, in pixels.

    Raises:
        ValueError: There is no such camera or mode.
        NotImplementedError: Pictures are asked for and there is nothing to see.
    """
    return GymnasiumAdapter(env, render_mode, camera, width, height)


class GymnasiumAdapter(GymnasiumVectorEnv):
    """See `as_gymnasium`."""

    def __init__(self, env: VectorEnv, render_mode: str | None, camera: str | None, width: int, height: int) -> None:
        spec = env.spec
        if render_mode is not None:
            check_name(("rgb_array",), "render mode", render_mode)
            if not spec.cameras:
                raise NotImplementedError(f"render_mode is {render_mode!r}, but there is nothing to see: no cameras")
        if camera is not None:
            check_name(spec.cameras, "camera", camera)
        self.render_mode = render_mode
        self._view = {"camera": camera, "width": width, "height": height}
        self._env = env
        self._shape = (spec.num_tasks, spec.envs_per_task)
        self._task = np.repeat(np.arange(spec.num_tasks), spec.envs_per_task)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        if spec.cameras:
            self.metadata |= {"render_modes": ["rgb_array"], "render_fps": spec.steps_per_second}
        self.num_envs = spec.num_tasks * spec.envs_per_task
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (spec.obs_dim,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (spec.action_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, "row obs"], dict[str, Any]]:
        """Start a new episode everywhere. `seed` has no effect: the goal streams are seeded by `make`."""
        if seed is not None:
            warnings.warn("reset(seed=...) has no effect; give the seed to mtrl.envs.make", UserWarning, stacklevel=2)
        goal = (options or {}).get("goal")
        obs = self._env.reset(None if goal is None else np.asarray(goal))
        return obs.reshape(self.num_envs, -1), self._infos(task=self._task)

    def step(
        self, actions: Float[np.ndarray, "row action"]
    ) -> tuple[
        Float[np.ndarray, "row obs"],
        Float[np.ndarray, " row"],
        Bool[np.ndarray, " row"],
        Bool[np.ndarray, " row"],
        dict[str, Any],
    ]:
        """Advance all environments; an ended episode is followed at once by a new one."""
        step = self._env.step(np.asarray(actions, np.float32).reshape(*self._shape, -1))
        terminated, truncated = step.terminated.reshape(-1), step.truncated.reshape(-1)
        infos = self._infos(
            task=self._task,
            success=step.success.reshape(-1),
            goal=step.goal.reshape(-1),
            valid=step.valid.reshape(-1),
            final_obs=step.final_obs.reshape(self.num_envs, -1),
        )
        infos["_final_obs"] = terminated | truncated
        for column, name in enumerate(self._env.spec.info_names):
            if name not in infos:
                infos |= {name: step.info[..., column].reshape(-1), f"_{name}": step.valid.reshape(-1).copy()}
        return step.obs.reshape(self.num_envs, -1), step.reward.reshape(-1), terminated, truncated, infos

    def render(self) -> tuple[UInt8[np.ndarray, "height width 3"], ...] | None:
        """Return a picture of every copy, upright, ordered by task; None where no `render_mode` was chosen."""
        if self.render_mode is None:
            return None
        pictures = self._env.render(**self._view)
        return tuple(pictures.reshape(self.num_envs, *pictures.shape[2:]))

    def close_extras(self, **kwargs: object) -> None:
        """Close the environment beneath; called by `close`."""
        del kwargs
        self._env.close()

    def _infos(self, **arrays: np.ndarray) -> dict[str, Any]:
        masks = {f"_{name}": np.ones(self.num_envs, np.bool_) for name in arrays}
        return {name: array.copy() for name, array in arrays.items()} | masks
