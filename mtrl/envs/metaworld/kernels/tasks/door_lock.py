"""door-lock-v3: turn the lock of the door. `metaworld.envs.sawyer_door_lock_v3.SawyerDoorLockEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import hamacher_product, length, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body_quat, fixed, site

LOCK_LENGTH = 0.1
SCALE = np.array([0.25, 1.0, 0.5])


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    lock: Point
    door_quat: np.ndarray


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        lock=site(env, "lockStartLock"),
        door_quat=body_quat(env, "door_link"),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position of the lock and orientation of the door."""
    objects[:3] = scene.lock
    objects[3:7] = scene.door_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj = obs[4:7]
    tcp_to_obj = length((obj - gripper.left_pad) * SCALE)
    tcp_to_obj_init = tcp_to_obj  # stock's `init_left_pad` is a view of where the pad is now
    obj_to_target = abs(scene.target[2] - obj[2])
    tcp_opened = max(obs[3], 0.0)
    near_lock = long_tail(tcp_to_obj, 0.0, 0.01, tcp_to_obj_init)
    lock_pressed = long_tail(obj_to_target, 0.0, 0.005, LOCK_LENGTH)
    reward = 2 * hamacher_product(tcp_opened, near_lock) + 8 * lock_pressed
    return reward, obj_to_target <= 0.02


step = make_step(observe, evaluate)
