"""peg-insert-side-v3: put the peg into the hole.

`metaworld.envs.sawyer_peg_insertion_side_v3.SawyerPegInsertionSideEnvV3`.
"""

from typing import NamedTuple

import numpy as np
from metaworld.envs.sawyer_peg_insertion_side_v3 import SawyerPegInsertionSideEnvV3

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail, scaled_distance
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, site, site_mat

TARGET_RADIUS = 0.07
SCALE = (1.0, 2.0, 2.0)


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    peg_grasp: Point
    peg_grasp_mat: np.ndarray
    peg_head: Point
    peg_head_pos_init: Point
    brc_col_box_1: Point
    tlc_col_box_1: Point
    brc_col_box_2: Point
    tlc_col_box_2: Point
    obj_init_pos: Point


def scene(env: SawyerPegInsertionSideEnvV3) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        peg_grasp=site(env, "pegGrasp"),
        peg_grasp_mat=site_mat(env, "pegGrasp"),
        peg_head=site(env, "pegHead"),
        peg_head_pos_init=fixed(env.peg_head_pos_init),
        brc_col_box_1=site(env, "bottom_right_corner_collision_box_1"),
        tlc_col_box_1=site(env, "top_left_corner_collision_box_1"),
        brc_col_box_2=site(env, "bottom_right_corner_collision_box_2"),
        tlc_col_box_2=site(env, "top_left_corner_collision_box_2"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the place to grasp the peg."""
    objects[:3] = scene.peg_grasp
    from_matrix(scene.peg_grasp_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, obj_head, tcp_opened, target = obs[4:7], scene.peg_head, obs[3], scene.target
    tcp_to_obj = distance(obj, gripper.tcp)
    obj_to_target = scaled_distance(obj_head, target, SCALE)
    in_place_margin = scaled_distance(scene.peg_head_pos_init, target, SCALE)
    in_place = long_tail(obj_to_target, 0.0, TARGET_RADIUS, in_place_margin)
    collision_box_bottom_1, is_inside_1 = _rect_prism_tolerance(obj_head, scene.brc_col_box_1, scene.tlc_col_box_1)
    collision_box_bottom_2, is_inside_2 = _rect_prism_tolerance(obj_head, scene.brc_col_box_2, scene.tlc_col_box_2)
    in_place = hamacher_product(in_place, hamacher_product(collision_box_bottom_2, collision_box_bottom_1))
    object_grasped, is_single = caging_reward(
        gripper, action[3], obj, scene.obj_init_pos, 0.0075, 0.03, 0.01, 0.005, HIGH_DENSITY
    )
    is_lifted = tcp_to_obj < 0.08 and tcp_opened > 0 and obj[2] - 0.01 > scene.obj_init_pos[2]
    if is_lifted:
        object_grasped, is_single = 1.0, False
    # In a box, stock's in_place is no Python number but a float64, which the product then is too.
    reward = hamacher_product(object_grasped, in_place, is_single and not is_inside_1 and not is_inside_2)
    if is_lifted:
        reward += 1.0 + 5 * in_place
    if obj_to_target <= TARGET_RADIUS:
        reward = 10.0
    return reward, obj_to_target <= 0.07


@kernel
def _rect_prism_tolerance(curr: Point, zero: Point, one: Point) -> tuple[float, bool]:
    """Return how far a point in a box is from corner `zero` towards `one`, 1 outside, and whether it is inside."""
    scales = 1.0
    for i in range(3):
        if not min(zero[i], one[i]) <= curr[i] <= max(zero[i], one[i]):
            return 1.0, False
        scales *= (curr[i] - zero[i]) / (one[i] - zero[i])
    return scales, True


step = make_step(observe, evaluate)
