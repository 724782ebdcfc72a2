"""peg-unplug-side-v3: pull the plug. `metaworld.envs.sawyer_peg_unplug_side_v3.SawyerPegUnplugSideEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body_quat, fixed, site


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    peg_end: Point
    plug_quat: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        peg_end=site(env, "pegEnd"),
        plug_quat=body_quat(env, "plug1"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the plug."""
    objects[:3] = scene.peg_end
    objects[3:7] = scene.plug_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj, tcp_opened, target = obs[4:7], obs[3], scene.target
    tcp_to_obj = distance(obj, gripper.tcp)
    obj_to_target = distance(obj, target)
    object_grasped, is_single = caging_reward(
        gripper, action[3], obj, scene.obj_init_pos, 0.025, 0.05, 0.01, 0.005, HIGH_DENSITY, 0.8
    )
    in_place = long_tail(obj_to_target, 0.0, 0.05, distance(scene.obj_init_pos, target))
    grasp_success = tcp_opened > 0.5 and obj[0] - scene.obj_init_pos[0] > 0.015
    reward = 2 * object_grasped
    if grasp_success and tcp_to_obj < 0.035:
        reward = rounded(rounded(1 + reward, is_single) + rounded(5 * in_place, is_single), is_single)
    if obj_to_target <= 0.05:
        reward = 10.0
    return reward, obj_to_target <= 0.07


step = make_step(observe, evaluate)
