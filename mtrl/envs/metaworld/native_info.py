"""The native engine, telling what stock tells about every step. Runs in a worker process."""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from mtrl.envs.metaworld.native import NativeSawyerEnv
from mtrl.envs.worker_process import Transition


class InformedSawyerEnv:
    """A `NativeSawyerEnv` whose transitions carry Meta-World's info, computed by Meta-World in every step."""

    def __init__(self, native: NativeSawyerEnv) -> None:
        self._native = native

    def reset(self, goal: int) -> Float[np.ndarray, " obs"]:
        """Start an episode with the goal of that index."""
        return self._native.reset(goal)

    def step(self, action: Float[np.ndarray, " action"]) -> Transition:
        """Advance by one action; the simulation goes the same way as without info."""
        transition = self._native.step(action)
        return transition._replace(info=self._native.info(action)) if transition.valid else transition

    def get_state(self) -> dict[str, Any]:
        """Return goal, simulation and attributes; the native engine's state."""
        return self._native.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self._native.set_state(state)

    def render(self, camera: str, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return an upright picture of the present state; see `SawyerEnv.render`."""
        return self._native.render(camera, width, height)

    def close(self) -> None:
        """Free the renderer."""
        self._native.close()
