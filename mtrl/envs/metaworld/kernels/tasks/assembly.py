"""assembly-v3: put the wrench's ring on the peg. `metaworld.envs.sawyer_assembly_peg_v3.SawyerNutAssemblyEnvV3`."""

import math
from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance_in_plane, long_tail, quat_error, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import MEDIUM_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body_quat, fixed, site

WRENCH_HANDLE_LENGTH = 0.02


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
    """Write position of the wrench's handle and orientation of the wrench."""
    objects[:3] = scene.wrench
    objects[3:7] = scene.wrench_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    hand, wrench = obs[:3], obs[4:7]
    # The grasp counts anywhere along the handle.
    wrench_threshed = wrench.copy()
    if abs(wrench[0] - hand[0]) < WRENCH_HANDLE_LENGTH / 2.0:
        wrench_threshed[0] = hand[0]
    reward_quat = max(1.0 - quat_error(obs[7:11]) / 0.4, 0.0)
    reward_grab, is_single = caging_reward(
        gripper, action[3], wrench_threshed, scene.obj_init_pos, 0.015, 0.02, 0.01, 0.01, MEDIUM_DENSITY
    )
    reward_in_place, success = _reward_pos(scene.wrench_center, scene.target)
    reward = rounded(2.0 * reward_grab + rounded(6.0 * reward_in_place, is_single), is_single)
    reward = rounded(reward * rounded(reward_quat, is_single), is_single)
    if success:
        reward = 10.0
    return reward, success


@kernel
def _reward_pos(wrench_center: np.ndarray, target_pos: np.ndarray) -> tuple[float, bool]:
    radius = distance_in_plane(target_pos, wrench_center, 0, 1)
    success = radius < 0.02 and target_pos[2] - wrench_center[2] > 0.0
    # A funnel centred on the peg, with a wider neck once the ring is on the peg.
    threshold = 0.02 if success else 0.01
    target_height = 0.02 * math.log(radius - threshold) + 0.2 if radius > threshold else 0.0
    error = math.sqrt(radius**2 + ((target_height - wrench_center[2]) * 3.0) ** 2)
    lifted = wrench_center[2] > 0.02 or radius < threshold
    return (0.1 if lifted else 0.0) + 0.9 * long_tail(error, 0, 0.02, 0.4), success


step = make_step(observe, evaluate)
