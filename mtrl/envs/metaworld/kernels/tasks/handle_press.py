"""handle-press-v3: press the handle down. `metaworld.envs.sawyer_handle_press_v3.SawyerHandlePressEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.envs.sawyer_handle_press_v3 import SawyerHandlePressEnvV3

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, site

TARGET_RADIUS = 0.02
HANDLE_RADIUS = 0.02


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    handle: Point
    handle_init_pos: Point


def scene(env: SawyerHandlePressEnvV3) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        handle=site(env, "handleStart"),
        handle_init_pos=fixed(env._handle_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write the position of the handle; stock shows no orientation."""
    objects[:3] = scene.handle


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    target = scene.target
    target_to_obj = abs(scene.handle[2] - target[2])
    in_place_margin = abs(abs(scene.handle_init_pos[2] - target[2]) - TARGET_RADIUS)
    in_place = long_tail(target_to_obj, 0.0, TARGET_RADIUS, in_place_margin)
    reach_margin = abs(distance(scene.handle_init_pos, gripper.init_tcp) - HANDLE_RADIUS)
    reach = long_tail(distance(scene.handle, gripper.tcp), 0.0, HANDLE_RADIUS, reach_margin)
    success = target_to_obj <= TARGET_RADIUS
    reward = 1.0 if success else hamacher_product(reach, in_place)
    return reward * 10, success


step = make_step(observe, evaluate)
