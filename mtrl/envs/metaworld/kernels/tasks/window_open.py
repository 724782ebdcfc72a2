"""window-open-v3: slide the window open. `metaworld.envs.sawyer_window_open_v3.SawyerWindowOpenEnvV3`."""

# The stock class has attributes that its base has not.
# pyright: reportAttributeAccessIssue=false

from typing import NamedTuple

import numpy as np
from metaworld.envs.sawyer_window_open_v3 import SawyerWindowOpenEnvV3

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, site

TARGET_RADIUS = 0.05


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    handle: Point
    obj_init_pos: Point
    window_handle_pos_init: Point


def scene(env: SawyerWindowOpenEnvV3) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        handle=site(env, "handleOpenStart"),
        obj_init_pos=fixed(env.obj_init_pos),
        window_handle_pos_init=fixed(env.window_handle_pos_init),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write the position of the handle; its orientation stays 0."""
    objects[:3] = scene.handle


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, tcp, target = scene.handle, gripper.tcp, scene.target
    target_to_obj = abs(obj[0] - target[0])
    target_to_obj_init = abs(scene.obj_init_pos[0] - target[0])
    in_place = long_tail(target_to_obj, 0.0, TARGET_RADIUS, abs(target_to_obj_init - TARGET_RADIUS))
    handle_radius = 0.02
    tcp_to_obj = distance(obj, tcp)
    tcp_to_obj_init = distance(scene.window_handle_pos_init, gripper.init_tcp)
    reach = long_tail(tcp_to_obj, 0.0, handle_radius, abs(tcp_to_obj_init - handle_radius))
    return 10 * hamacher_product(reach, in_place), target_to_obj <= TARGET_RADIUS


step = make_step(observe, evaluate)
