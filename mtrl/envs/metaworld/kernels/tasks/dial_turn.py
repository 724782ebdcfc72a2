"""dial-turn-v3: turn the dial. `metaworld.envs.sawyer_dial_turn_v3.SawyerDialTurnEnvV3`."""

import math
from typing import NamedTuple

import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.arithmetic import distance, gaussian, hamacher_product, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_quat, fixed, joint

TARGET_RADIUS = 0.07
_DIAL_RADIUS = 0.05
_DIAL_REACH_RADIUS = 0.005


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    dial: Point
    dial_quat: np.ndarray
    dial_angle: np.ndarray
    init_dial_push_position: Point


def scene(env: SawyerXYZEnv) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        dial=body(env, "dial"),
        dial_quat=body_quat(env, "dial"),
        dial_angle=joint(env, "knob_Joint_1"),
        init_dial_push_position=fixed(env.dial_push_position),  # pyright: ignore[reportAttributeAccessIssue]
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position of the dial's handle and orientation of the dial."""
    angle = scene.dial_angle[0]
    objects[:3] = scene.dial
    objects[0] += math.sin(angle) * _DIAL_RADIUS
    objects[1] += -math.cos(angle) * _DIAL_RADIUS
    objects[3:7] = scene.dial_quat


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    obj = obs[4:7]
    dial_push_position = obj + np.array([0.05, 0.02, 0.09])
    target_to_obj = distance(obj, scene.target)
    target_to_obj_init = distance(scene.init_dial_push_position, scene.target)
    in_place = long_tail(target_to_obj, 0, TARGET_RADIUS, abs(target_to_obj_init - TARGET_RADIUS))
    tcp_to_obj = distance(dial_push_position, gripper.tcp)
    tcp_to_obj_init = distance(scene.init_dial_push_position, gripper.init_tcp)
    reach = gaussian(tcp_to_obj, 0, _DIAL_REACH_RADIUS, abs(tcp_to_obj_init - _DIAL_REACH_RADIUS))
    # The effort is a float32 unless it is cut to a Python number.
    is_single = 0 < action[3] <= 1
    gripper_closed = min(max(0.0, float(action[3])), 1.0)
    reach = hamacher_product(reach, gripper_closed, is_single)
    reward = rounded(10 * hamacher_product(reach, in_place, is_single), is_single)
    return reward, target_to_obj <= TARGET_RADIUS


step = make_step(observe, evaluate)
