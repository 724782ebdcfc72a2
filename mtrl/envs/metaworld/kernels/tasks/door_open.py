"""door-open-v3: pull the door open by its handle. `metaworld.envs.sawyer_door_v3.SawyerDoorEnvV3`."""

import math
from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance_in_plane, hamacher_product, length, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, geom, geom_mat, joint

DOOR_OFFSET = np.array([-0.05, 0.0, 0.0])
IN_PLACE = np.array([0.05, 0.03, -0.01])
THRESHOLD = 0.12


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    handle: Point
    handle_mat: np.ndarray
    angle: np.ndarray


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        handle=geom(env, "handle"),
        handle_mat=geom_mat(env, "handle"),
        angle=joint(env, "doorjoint"),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the handle."""
    objects[:3] = scene.handle
    from_matrix(scene.handle_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    grab = rounded(min(max(action[3], -1.0), 1.0) + 1.0, is_single=True) / 2.0
    ready_to_open, opened = _reward_pos(obs, scene.angle[0])
    reward = 2.0 * hamacher_product(ready_to_open, grab) + 8.0 * opened
    success = abs(obs[4] - scene.target[0]) <= 0.08
    if success:
        reward = 10.0
    return reward, success


@kernel
def _reward_pos(obs: np.ndarray, theta: float) -> tuple[float, float]:
    hand = obs[:3]
    door = obs[4:7] + DOOR_OFFSET
    # floor is a 3D funnel centered on the door handle
    radius = distance_in_plane(hand, door, 0, 1)
    floor = 0.0 if radius <= THRESHOLD else 0.04 * math.log(radius - THRESHOLD) + 0.4
    above_floor = 1.0 if hand[2] >= floor else long_tail(floor - hand[2], 0.0, 0.01, floor / 2.0)
    in_place = long_tail(length(hand - door - IN_PLACE), 0.0, THRESHOLD / 2.0, 0.5)
    ready_to_open = hamacher_product(above_floor, in_place)
    door_angle = -theta
    tried = 1.0 if theta < -math.pi / 90.0 else 0.0
    opened = 0.2 * tried + 0.8 * long_tail(math.pi / 2.0 + math.pi / 6 - door_angle, 0.0, 0.5, math.pi / 3.0)
    return ready_to_open, opened


step = make_step(observe, evaluate)
