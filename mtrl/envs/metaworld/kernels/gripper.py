"""What all tasks share: the gripper, and the reward for closing it around an object."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail, rounded
from mtrl.envs.metaworld.kernels.compile import kernel

Point = Float[np.ndarray, " 3"]

_FIRM = 0.97

PLAIN, HIGH_DENSITY, MEDIUM_DENSITY = 0, 1, 2
"""How much the way to the object counts beside the grasp."""


class Gripper(NamedTuple):
    """Views of MuJoCo's memory, and where the fingers were after the reset."""

    hand: Point
    left_pad: Point
    right_pad: Point
    left_finger: Point
    right_finger: Point
    tcp: Point
    """Centre of the fingers, written by `Gripper.move_tcp` after every step."""
    init_tcp: Point
    """Centre of the fingers when the hand had been brought to its place."""


@kernel
def update_tcp(gripper: Gripper) -> None:
    """Write the centre of the fingers as it is now."""
    for i in range(3):
        gripper.tcp[i] = (gripper.right_finger[i] + gripper.left_finger[i]) / 2.0


@kernel
def caging_reward(
    gripper: Gripper,
    effort: float,
    obj: Point,
    init_obj: Point,
    obj_radius: float,
    pad_success_thresh: float,
    object_reach_radius: float,
    xz_thresh: float,
    density: int,
    desired_effort: float = 1.0,
) -> tuple[float, bool]:
    """Return `SawyerXYZEnv._gripper_caging_reward`, and whether it is a float32.

    Args:
            gripper: With `tcp` up to date.
            effort: Last component of the action.
            obj: Where the object is.
            init_obj: `obj_init_pos`.
            obj_radius: As in Meta-World, like the rest.
            pad_success_thresh: As in Meta-World.
            object_reach_radius: As in Meta-World.
            xz_thresh: As in Meta-World.
            density: _FIRM = 0.97

    PLAIN, HIGH_DENSITY or MEDIUM_DENSITY.
            desired_effort: As in Meta-World.
    """
    left = _pad_reward(gripper.left_pad[1], obj[1], init_obj[1], obj_radius, pad_success_thresh)
    right = _pad_reward(gripper.right_pad[1], obj[1], init_obj[1], obj_radius, pad_success_thresh)
    caging_y = hamacher_product(left, right)
    tcp, init_tcp = gripper.tcp, gripper.init_tcp
    margin = np.sqrt((init_obj[0] - init_tcp[0]) ** 2 + (init_obj[2] - init_tcp[2]) ** 2) - xz_thresh
    xz_distance = np.sqrt((tcp[0] - obj[0]) ** 2 + (tcp[2] - obj[2]) ** 2)
    caging = hamacher_product(caging_y, long_tail(xz_distance, 0.0, xz_thresh, margin))
    # The effort is a float32 unless it is cut to a Python number, and only a firm hold makes it count.
    is_single = caging > _FIRM and 0 < effort <= rounded(desired_effort, is_single=True)
    closed = 1.0 if effort > 0 else 0.0
    if is_single:
        closed = rounded(effort / rounded(desired_effort, is_single), is_single)
    result = hamacher_product(caging, closed if caging > _FIRM else 0.0, is_single)
    if density == HIGH_DENSITY:
        result = rounded(rounded(result + rounded(caging, is_single), is_single) / 2, is_single)
    elif density == MEDIUM_DENSITY:
        reach_margin = abs(distance(init_obj, init_tcp) - object_reach_radius)
        reach = long_tail(distance(obj, tcp), 0.0, object_reach_radius, reach_margin)
        result = rounded(rounded(result + rounded(reach, is_single), is_single) / 2, is_single)
    return result, is_single


@kernel
def _pad_reward(pad_y: float, obj_y: float, init_obj_y: float, obj_radius: float, pad_success_thresh: float) -> float:
    margin = abs(abs(pad_y - init_obj_y) - pad_success_thresh)
    return long_tail(abs(pad_y - obj_y), obj_radius, pad_success_thresh, margin)
