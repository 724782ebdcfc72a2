"""reach-wall-v3: bring the hand past the wall. `metaworld.envs.sawyer_reach_wall_v3.SawyerReachWallEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, long_tail
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
    hand_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        obj=body(env, "obj"),
        obj_mat=geom_mat(env, "objGeom"),
        hand_init_pos=fixed(env.hand_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the puck."""
    objects[:3] = scene.obj
    from_matrix(scene.obj_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    tcp_to_target = distance(gripper.tcp, scene.target)
    in_place_margin = distance(scene.hand_init_pos, scene.target)
    in_place = long_tail(tcp_to_target, 0.0, TARGET_RADIUS, in_place_margin)
    return 10 * in_place, tcp_to_target <= 0.05


step = make_step(observe, evaluate)
