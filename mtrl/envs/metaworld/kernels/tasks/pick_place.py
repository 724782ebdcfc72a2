"""pick-place-v3: bring the puck to the goal. `metaworld.envs.sawyer_pick_place_v3.SawyerPickPlaceEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, distance_in_plane, hamacher_product, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, fixed, geom_mat

TARGET_RADIUS = 0.05


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    obj: Point
    obj_mat: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        obj=body(env, "obj"),
        obj_mat=geom_mat(env, "objGeom"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the puck."""
    objects[:3] = scene.obj
    from_matrix(scene.obj_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, tcp_opened, target = obs[4:7], obs[3], scene.target
    obj_to_target = distance(obj, target)
    tcp_to_obj = distance(obj, gripper.tcp)
    in_place = long_tail(obj_to_target, 0.0, TARGET_RADIUS, distance(scene.obj_init_pos, target))
    object_grasped, is_single = _caging_reward(gripper, action[3], obj, scene.obj_init_pos)
    reward = hamacher_product(object_grasped, in_place, is_single)
    if tcp_to_obj < 0.02 and tcp_opened > 0 and obj[2] - 0.01 > scene.obj_init_pos[2]:
        reward = rounded(reward + rounded(1.0 + 5.0 * in_place, is_single), is_single)
    if obj_to_target < TARGET_RADIUS:
        reward = 10.0
    return reward, obj_to_target <= 0.07


@kernel
def _caging_reward(gripper: Gripper, effort: float, obj: Point, init_obj: Point) -> tuple[float, bool]:
    """Return this task's own `_gripper_caging_reward`, and whether it is a float32."""
    pad_success_margin, x_z_success_margin, obj_radius = 0.05, 0.005, 0.015
    delta_object_y_left_pad = gripper.left_pad[1] - obj[1]
    delta_object_y_right_pad = obj[1] - gripper.right_pad[1]
    # Stock's init_left_pad and init_right_pad are the pads as they are now.
    right_caging_margin = abs(abs(obj[1] - gripper.right_pad[1]) - pad_success_margin)
    left_caging_margin = abs(abs(obj[1] - gripper.left_pad[1]) - pad_success_margin)
    right_caging = long_tail(delta_object_y_right_pad, obj_radius, pad_success_margin, right_caging_margin)
    left_caging = long_tail(delta_object_y_left_pad, obj_radius, pad_success_margin, left_caging_margin)
    y_caging = hamacher_product(left_caging, right_caging)
    tcp_obj_norm_x_z = distance_in_plane(gripper.tcp, obj, 0, 2)
    tcp_obj_x_z_margin = distance_in_plane(init_obj, gripper.init_tcp, 0, 2) - x_z_success_margin
    x_z_caging = long_tail(tcp_obj_norm_x_z, 0.0, x_z_success_margin, tcp_obj_x_z_margin)
    caging = hamacher_product(y_caging, x_z_caging)
    # The effort is a float32 unless it is cut to a Python number, and only a firm hold makes it count.
    is_single = caging > 0.97 and 0 < effort <= 1
    gripping = min(max(0.0, effort), 1.0) if caging > 0.97 else 0.0
    result = hamacher_product(caging, gripping, is_single)
    return rounded(rounded(result + rounded(caging, is_single), is_single) / 2, is_single), is_single


step = make_step(observe, evaluate)
