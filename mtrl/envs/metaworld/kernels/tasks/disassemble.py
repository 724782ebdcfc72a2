"""disassemble-v3: lift the wrench off the peg. `metaworld.envs.sawyer_disassemble_peg_v3.SawyerNutDisassembleEnvV3`."""

import math
from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import length, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body_quat, fixed, site

WRENCH_HANDLE_LENGTH = 0.02
TARGET_OFFSET = np.array([0.0, 0.0, 0.1])


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    wrench: Point
    wrench_quat: np.ndarray
    wrench_center: Point
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        wrench=site(env, "RoundNut-8"),
        wrench_quat=body_quat(env, "RoundNut"),
        wrench_center=site(env, "RoundNut"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position of the handle and orientation of the wrench."""
    objects[:3] = scene.wrench
    objects[3:7] = scene.wrench_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    hand, wrench = obs[:3], obs[4:7]
    # The handle is no sphere: what is caged is the part of it under the hand.
    wrench_threshed = wrench.copy()
    if abs(wrench[0] - hand[0]) < WRENCH_HANDLE_LENGTH / 2.0:
        wrench_threshed[0] = hand[0]
    error = math.sqrt((obs[7] - 0.707) ** 2 + obs[8] ** 2 + obs[9] ** 2 + (obs[10] - 0.707) ** 2)
    reward_quat = max(1.0 - error / 0.4, 0.0)
    reward_grab, is_single = caging_reward(
        gripper, action[3], wrench_threshed, scene.obj_init_pos, 0.015, 0.02, 0.01, 0.01, HIGH_DENSITY
    )
    pos_error = scene.target + TARGET_OFFSET - scene.wrench_center
    lifted = 1.0 if scene.wrench_center[2] > 0.02 else 0.0
    reward_in_place = 0.1 * lifted + 0.9 * long_tail(length(pos_error), 0.0, 0.02, 0.2)
    reward = rounded(rounded(2.0 * reward_grab, is_single) + rounded(6.0 * reward_in_place, is_single), is_single)
    reward = rounded(reward * rounded(reward_quat, is_single), is_single)
    success = obs[6] > scene.target[2]
    if success:
        reward = 10.0
    return reward, success


step = make_step(observe, evaluate)
