"""bin-picking-v3: bring the cube to the other bin. `metaworld.envs.sawyer_bin_picking_v3.SawyerBinPickingEnvV3`."""

# The stock class has attributes that its base has not.
# pyright: reportAttributeAccessIssue=false

import math
from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, distance_in_plane, hamacher_product, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_quat, fixed

TARGET_RADIUS = 0.05
_THRESHOLD = 0.03


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    """Live: the middle of the other bin."""
    obj: Point
    obj_quat: np.ndarray
    obj_init_pos: Point
    target_to_obj_init: np.ndarray
    """One number, NaN until the first step of the episode writes it."""


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    target_to_obj_init = env._target_to_obj_init
    return Scene(
        target=body(env, "bin_goal"),
        obj=body(env, "obj"),
        obj_quat=body_quat(env, "obj"),
        obj_init_pos=fixed(env.obj_init_pos),
        target_to_obj_init=fixed([math.nan if target_to_obj_init is None else target_to_obj_init]),
    )


def keep(env: SawyerXYZEnv, scene: Scene) -> None:
    """Write back what steps have changed."""
    target_to_obj_init = float(scene.target_to_obj_init[0])
    env._target_to_obj_init = None if math.isnan(target_to_obj_init) else target_to_obj_init


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the cube."""
    objects[:3] = scene.obj
    objects[3:7] = scene.obj_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    hand, obj = obs[:3], obs[4:7]
    target_to_obj = distance(obj, scene.target)
    if math.isnan(scene.target_to_obj_init[0]):
        scene.target_to_obj_init[0] = target_to_obj
    in_place = long_tail(target_to_obj, 0, TARGET_RADIUS, scene.target_to_obj_init[0])
    floor = min(_floor(hand, scene.obj_init_pos), _floor(hand, scene.target))
    above_floor = 1.0 if hand[2] >= floor else long_tail(max(floor - hand[2], 0.0), 0.0, 0.01, 0.05)
    object_grasped, is_single = caging_reward(
        gripper, action[3], obj, scene.obj_init_pos, 0.015, 0.05, 0.01, 0.01, HIGH_DENSITY, 0.7
    )
    reward = hamacher_product(object_grasped, in_place, is_single)
    near_object = distance(obj, hand) < 0.04
    pinched_without_obj = obs[3] < 0.43
    lifted = obj[2] - 0.02 > scene.obj_init_pos[2]
    if near_object and lifted and not pinched_without_obj:
        more = 1.0 + 5.0 * hamacher_product(above_floor, in_place)
        reward = rounded(reward + rounded(more, is_single), is_single)
    if target_to_obj < TARGET_RADIUS:
        reward = 10.0
    return reward, target_to_obj <= 0.05


@kernel
def _floor(hand: np.ndarray, center: np.ndarray) -> float:
    radius = distance_in_plane(hand, center, 0, 1)
    return 0.02 * math.log(radius - _THRESHOLD) + 0.2 if radius > _THRESHOLD else 0.0


step = make_step(observe, evaluate)
