"""faucet-close-v3: close the faucet by its handle. `metaworld.envs.sawyer_faucet_close_v3.SawyerFaucetCloseEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, gaussian, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body_quat, fixed, site

TARGET_RADIUS = 0.07
FAUCET_REACH_RADIUS = 0.01


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    handle: Point
    faucet_quat: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        handle=site(env, "handleStartClose"),
        faucet_quat=body_quat(env, "faucetBase"),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position of the handle and orientation of the faucet."""
    objects[:3] = scene.handle
    objects[2] -= 0.01
    objects[3:7] = scene.faucet_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj = obs[4:7]
    target_to_obj = distance(obj, scene.target)
    in_place_margin = abs(distance(scene.obj_init_pos, scene.target) - TARGET_RADIUS)
    in_place = long_tail(target_to_obj, 0.0, TARGET_RADIUS, in_place_margin)
    reach_margin = abs(distance(scene.obj_init_pos, gripper.init_tcp) - FAUCET_REACH_RADIUS)
    reach = gaussian(distance(obj, gripper.tcp), 0.0, FAUCET_REACH_RADIUS, reach_margin)
    reward = (2 * reach + 3 * in_place) * 2
    success = target_to_obj <= TARGET_RADIUS
    if success:
        reward = 10.0
    return reward, success


step = make_step(observe, evaluate)
