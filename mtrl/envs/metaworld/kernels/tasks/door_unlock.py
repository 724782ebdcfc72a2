"""door-unlock-v3: turn the lock of the door back. `metaworld.envs.sawyer_door_unlock_v3.SawyerDoorUnlockEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import length, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_quat, fixed, site

LOCK_LENGTH = 0.1
OFFSET = np.array([0.0, 0.055, 0.07])
SCALE = np.array([0.25, 1.0, 0.5])


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    lock: Point
    door_quat: np.ndarray
    obj_init_pos: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        lock=site(env, "lockStartUnlock"),
        door_quat=body_quat(env, "door_link"),
        obj_init_pos=body(env, "lock_link"),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position of the lock and orientation of the door."""
    objects[:3] = scene.lock
    objects[3:7] = scene.door_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    hand, lock = obs[:3], obs[4:7]
    shoulder_to_lock = (hand + OFFSET - lock) * SCALE
    shoulder_to_lock_init = (gripper.init_tcp + OFFSET - scene.obj_init_pos) * SCALE
    ready_to_push = long_tail(length(shoulder_to_lock), 0.0, 0.02, length(shoulder_to_lock_init))
    obj_to_target = abs(scene.target[0] - lock[0])
    pushed = long_tail(obj_to_target, 0.0, 0.005, LOCK_LENGTH)
    reward = 2 * ready_to_push + 8 * pushed
    return reward, obj_to_target <= 0.02


step = make_step(observe, evaluate)
