"""stick-pull-v3: pull the thermos with the stick. `metaworld.envs.sawyer_stick_pull_v3.SawyerStickPullEnvV3`."""

# The stock class has attributes that its base has not.
# pyright: reportAttributeAccessIssue=false

from typing import NamedTuple

import numpy as np
from metaworld.envs.sawyer_stick_pull_v3 import SawyerStickPullEnvV3

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail, scaled_distance
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_mat, fixed, site

TARGET_RADIUS = 0.05
YZ_SCALING = (1.0, 1.0, 2.0)


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    stick: Point
    stick_mat: np.ndarray
    end_of_stick: Point
    insertion: Point
    stick_init_pos: Point
    obj_init_pos: Point


def scene(env: SawyerStickPullEnvV3) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        stick=body(env, "stick"),
        stick_mat=body_mat(env, "stick"),
        end_of_stick=site(env, "stick_end"),
        insertion=site(env, "insertion"),
        stick_init_pos=fixed(env.stick_init_pos),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the stick, and the position of the handle, whose orientation stays 0."""
    objects[:3] = scene.stick
    from_matrix(scene.stick_mat, objects[3:7])
    objects[7:10] = scene.insertion


@kernel
def stick_is_inserted(handle: Point, end_of_stick: Point) -> bool:
    """Return whether the stick is through the handle."""
    return (
        end_of_stick[0] >= handle[0]
        and abs(end_of_stick[1] - handle[1]) <= 0.040
        and abs(end_of_stick[2] - handle[2]) <= 0.060
    )


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    tcp, stick, handle, tcp_opened, target = gripper.tcp, obs[4:7], obs[11:14], obs[3], scene.target
    container = handle + np.array([0.05, 0.0, 0.0])
    container_init_pos = scene.obj_init_pos + np.array([0.05, 0.0, 0.0])
    tcp_to_stick = distance(stick, tcp)
    handle_to_target = distance(handle, target)
    stick_to_container = scaled_distance(stick, container, YZ_SCALING)
    stick_in_place_margin = scaled_distance(scene.stick_init_pos, container_init_pos, YZ_SCALING)
    stick_in_place = long_tail(stick_to_container, 0.0, TARGET_RADIUS, stick_in_place_margin)
    stick_in_place_margin_2 = distance(scene.stick_init_pos, target)
    stick_in_place_2 = long_tail(distance(stick, target), 0.0, TARGET_RADIUS, stick_in_place_margin_2)
    container_in_place_margin = distance(scene.obj_init_pos, target)
    container_in_place = long_tail(distance(container, target), 0.0, TARGET_RADIUS, container_in_place_margin)
    object_grasped, is_single = caging_reward(
        gripper, action[3], stick, scene.obj_init_pos, 0.014, 0.05, 0.01, 0.01, HIGH_DENSITY
    )
    grasp_success = tcp_to_stick < 0.02 and tcp_opened > 0 and stick[2] - 0.01 > scene.stick_init_pos[2]
    if grasp_success:
        object_grasped, is_single = 1.0, False
    in_place_and_object_grasped = hamacher_product(object_grasped, stick_in_place, is_single)
    reward = in_place_and_object_grasped
    is_inserted = stick_is_inserted(handle, scene.end_of_stick)
    if grasp_success:
        reward = 1.0 + in_place_and_object_grasped + 5.0 * stick_in_place
        if is_inserted:
            reward = 1.0 + in_place_and_object_grasped + 5.0 + 2.0 * stick_in_place_2 + 1.0 * container_in_place
            if handle_to_target <= 0.12:
                reward = 10.0
    return reward, handle_to_target <= 0.12 and is_inserted


step = make_step(observe, evaluate)
