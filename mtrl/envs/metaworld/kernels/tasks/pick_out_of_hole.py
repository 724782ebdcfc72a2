"""pick-out-of-hole-v3: lift the puck to the goal.

`metaworld.envs.sawyer_pick_out_of_hole_v3.SawyerPickOutOfHoleEnvV3`.
"""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, distance_in_plane, hamacher_product, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_quat, fixed

TARGET_RADIUS = 0.05


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    obj: Point
    obj_quat: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        obj=body(env, "obj"),
        obj_quat=body_quat(env, "obj"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the puck."""
    objects[:3] = scene.obj
    objects[3:7] = scene.obj_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, tcp, init_obj = obs[4:7], gripper.tcp, scene.obj_init_pos
    obj_to_target = distance(obj, scene.target)
    tcp_to_obj = distance(obj, tcp)
    in_place_margin = distance(init_obj, scene.target)
    threshold = 0.03
    # floor is a 3D funnel centered on the initial object pos
    radius = distance_in_plane(tcp, init_obj, 0, 1)
    floor = 0.0 if radius <= threshold else 0.015 * np.log(radius - threshold) + 0.15
    # prevent the hand from running into cliff edge by staying above floor
    above_floor = 1.0 if tcp[2] >= floor else long_tail(max(floor - tcp[2], 0.0), 0.0, 0.01, 0.02)
    object_grasped, is_single = caging_reward(
        gripper, action[3], obj, init_obj, 0.015, 0.02, 0.01, 0.03, HIGH_DENSITY, 0.1
    )
    in_place = long_tail(obj_to_target, 0.0, 0.02, in_place_margin)
    reward = hamacher_product(object_grasped, in_place, is_single)
    near_object = tcp_to_obj < 0.04
    pinched_without_obj = obs[3] < 0.33
    lifted = obj[2] - 0.02 > init_obj[2]
    if near_object and lifted and not pinched_without_obj:
        more = 1.0 + 5.0 * hamacher_product(in_place, above_floor)
        reward = rounded(reward + rounded(more, is_single), is_single)
    if obj_to_target < TARGET_RADIUS:
        reward = 10.0
    return reward, obj_to_target <= 0.07


step = make_step(observe, evaluate)
