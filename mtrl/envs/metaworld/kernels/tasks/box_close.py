"""box-close-v3: put the lid on the box. `metaworld.envs.sawyer_box_close_v3.SawyerBoxCloseEnvV3`."""

import math
from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import (
    distance,
    distance_in_plane,
    hamacher_product,
    long_tail,
    quat_error,
    rounded,
    scaled_distance,
)
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_quat, fixed

ERROR_SCALE = (1.0, 1.0, 3.0)
"""Emphasis of the error in height."""


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    lid: Point
    lid_quat: np.ndarray


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(target=fixed(env._target_pos), lid=body(env, "top_link"), lid_quat=body_quat(env, "top_link"))


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the lid."""
    objects[:3] = scene.lid
    objects[3:7] = scene.lid_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    reward_grab = _reward_grab_effort(action[3])
    reward_quat = max(1.0 - quat_error(obs[7:11]) / 0.2, 0.0)
    ready_to_lift, lifted = _reward_pos(obs, scene.target)
    reward = 2.0 * hamacher_product(reward_grab, ready_to_lift) + 8.0 * lifted
    success = distance(obs[4:7], scene.target) < 0.08
    if success:
        reward = 10.0
    return reward * reward_quat, success


@kernel
def _reward_grab_effort(effort: float) -> float:
    return rounded(min(max(float(effort), -1.0), 1.0) + 1.0, is_single=True) / 2.0


@kernel
def _reward_pos(obs: np.ndarray, target_pos: np.ndarray) -> tuple[float, float]:
    hand, lid = obs[:3], obs[4:7].copy()
    lid[2] += 0.02
    threshold = 0.02
    # A funnel centred on the lid's handle: the hand shall not run into the handle from the side.
    radius = distance_in_plane(hand, lid, 0, 1)
    floor = 0.0 if radius <= threshold else 0.04 * math.log(radius - threshold) + 0.4
    above_floor = 1.0 if hand[2] >= floor else long_tail(floor - hand[2], 0.0, 0.01, floor / 2.0)
    in_place = long_tail(distance(hand, lid), 0, 0.02, 0.5)
    ready_to_lift = hamacher_product(above_floor, in_place)
    placed = long_tail(scaled_distance(target_pos, lid, ERROR_SCALE), 0, 0.05, 0.25)
    return ready_to_lift, (0.2 if lid[2] > 0.04 else 0.0) + 0.8 * placed


step = make_step(observe, evaluate)
