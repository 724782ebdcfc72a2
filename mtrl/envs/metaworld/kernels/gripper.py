"""What all tasks share: the gripper, and the reward for closing it around an object."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mtrl.envs.metaworld.kernels.arithmetic import distance, distance_in_plane, hamacher_product, long_tail, rounded
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
    """Centre of the fingers, written by `update_tcp` in every step."""
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
        density: PLAIN, HIGH_DENSITY or MEDIUM_DENSITY.
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


@kernel
def pads_reward(
    gripper: Gripper,
    obj: Point,
    init_obj: Point,
    obj_radius: float,
    grip_success_margin: float,
    x_z_success_margin: float,
) -> float:
    """Return `_gripper_caging_reward` of the tasks that have their own: of the pads alone, not of the action.

    These are push-back-v3, soccer-v3, sweep-v3 and sweep-into-v3.

    Args:
        gripper: With `tcp` up to date.
        obj: Where the object is.
        init_obj: `obj_init_pos`.
        obj_radius: As in Meta-World, like the rest.
        grip_success_margin: As in Meta-World.
        x_z_success_margin: As in Meta-World.
    """
    pad_success_margin = 0.05
    left = gripper.left_pad[1] - obj[1]
    right = obj[1] - gripper.right_pad[1]
    # Stock's init_left_pad and init_right_pad are the pads as they are now.
    left_margin = abs(abs(obj[1] - gripper.left_pad[1]) - pad_success_margin)
    right_margin = abs(abs(obj[1] - gripper.right_pad[1]) - pad_success_margin)
    y_caging = hamacher_product(
        long_tail(right, obj_radius, pad_success_margin, right_margin),
        long_tail(left, obj_radius, pad_success_margin, left_margin),
    )
    y_gripping = hamacher_product(
        long_tail(right, obj_radius, grip_success_margin, right_margin),
        long_tail(left, obj_radius, grip_success_margin, left_margin),
    )
    x_z_margin = distance_in_plane(init_obj, gripper.init_tcp, 0, 2) - x_z_success_margin
    x_z_caging = long_tail(distance_in_plane(gripper.tcp, obj, 0, 2), 0.0, x_z_success_margin, x_z_margin)
    caging = hamacher_product(y_caging, x_z_caging)
    gripping = y_gripping if caging > 0.95 else 0.0
    return (caging + gripping) / 2
