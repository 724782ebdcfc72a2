"""drawer-open-v3: pull the drawer open by its handle. `metaworld.envs.sawyer_drawer_open_v3.SawyerDrawerOpenEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, length, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_quat, fixed

MAX_DIST = 0.2
HANDLE_OFFSET = np.array([0.0, MAX_DIST, 0.0])
SCALE = np.array([3.0, 3.0, 1.0])


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    drawer: Point
    drawer_quat: np.ndarray


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        drawer=body(env, "drawer_link"),
        drawer_quat=body_quat(env, "drawer_link"),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position of the handle and orientation of the drawer."""
    objects[:3] = scene.drawer
    objects[1] -= 0.16
    objects[3:7] = scene.drawer_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    hand, handle = obs[:3], obs[4:7]
    handle_error = distance(handle, scene.target)
    opening = long_tail(handle_error, 0.0, 0.02, MAX_DIST)
    # Emphasize XY error so that gripper is able to drop down and cage handle without running into it
    gripper_error = (handle - hand) * SCALE
    handle_pos_init = scene.target + HANDLE_OFFSET
    gripper_error_init = (handle_pos_init - gripper.init_tcp) * SCALE
    caging = long_tail(length(gripper_error), 0.0, 0.01, length(gripper_error_init))
    reward = (caging + opening) * 5.0
    return reward, handle_error <= 0.03


step = make_step(observe, evaluate)
