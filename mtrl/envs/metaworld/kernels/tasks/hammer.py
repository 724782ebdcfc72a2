"""hammer-v3: drive the nail in with the hammer. `metaworld.envs.sawyer_hammer_v3.SawyerHammerEnvV3`."""

import math
from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import length, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_quat, fixed, joint

HAMMER_HANDLE_LENGTH = 0.14
HEAD_OFFSET = np.array([0.16, 0.06, 0.0])


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    hammer: Point
    hammer_quat: np.ndarray
    nail: Point
    nail_quat: np.ndarray
    nail_slide: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        hammer=body(env, "hammer"),
        hammer_quat=body_quat(env, "hammer"),
        nail=body(env, "nail_link"),
        nail_quat=body_quat(env, "nail_link"),
        nail_slide=joint(env, "NailSlideJoint"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write positions and orientations of hammer and nail."""
    objects[:3] = scene.hammer
    objects[3:7] = scene.hammer_quat
    objects[7:10] = scene.nail
    objects[10:14] = scene.nail_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    hand, hammer = obs[:3], obs[4:7]
    hammer_head = hammer + HEAD_OFFSET
    # The handle is no sphere: what is caged is the part of it under the hand.
    hammer_threshed = hammer.copy()
    if abs(hammer[0] - hand[0]) < HAMMER_HANDLE_LENGTH / 2.0:
        hammer_threshed[0] = hand[0]
    error = math.sqrt((obs[7] - 1.0) ** 2 + obs[8] ** 2 + obs[9] ** 2 + obs[10] ** 2)
    reward_quat = max(1.0 - error / 0.4, 0.0)
    reward_grab, is_single = caging_reward(
        gripper, action[3], hammer_threshed, scene.obj_init_pos, 0.015, 0.02, 0.01, 0.01, HIGH_DENSITY
    )
    lifted = 1.0 if hammer_head[2] > 0.02 else 0.0
    reward_in_place = 0.1 * lifted + 0.9 * long_tail(length(scene.target - hammer_head), 0.0, 0.02, 0.2)
    reward = rounded(rounded(2.0 * reward_grab, is_single) + rounded(6.0 * reward_in_place, is_single), is_single)
    reward = rounded(reward * rounded(reward_quat, is_single), is_single)
    success = scene.nail_slide[0] > 0.09
    if success and reward > 5.0:
        reward = 10.0
    return reward, success


step = make_step(observe, evaluate)
