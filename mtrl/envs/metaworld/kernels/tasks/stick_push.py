"""stick-push-v3: push the thermos with the stick. `metaworld.envs.sawyer_stick_push_v3.SawyerStickPushEnvV3`."""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

from typing import NamedTuple

import numpy as np
from metaworld.envs.sawyer_stick_push_v3 import SawyerStickPushEnvV3

from mtrl.envs.metaworld.kernels.arithmetic import distance, long_tail
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import HIGH_DENSITY, Gripper, Point, caging_reward
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import body, body_mat, fixed, site

TARGET_RADIUS = 0.12


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    stick: Point
    stick_mat: np.ndarray
    insertion: Point
    stick_init_pos: Point
    obj_init_pos: Point


def scene(env: SawyerStickPushEnvV3) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        stick=body(env, "stick"),
        stick_mat=body_mat(env, "stick"),
        insertion=site(env, "insertion"),
        stick_init_pos=fixed(env.stick_init_pos),
        obj_init_pos=fixed(env.obj_init_pos),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the stick, and the position of the thermos, whose orientation stays 0."""
    objects[:3] = scene.stick
    from_matrix(scene.stick_mat, objects[3:7])
    objects[7:10] = scene.insertion
    objects[8] += 0.09


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward, and success if the gripper touches the stick."""
    stick = obs[4:7] + np.array([0.015, 0.0, 0.0])
    container, tcp_opened, target = obs[11:14], obs[3], scene.target
    tcp_to_stick = distance(stick, gripper.tcp)
    stick_in_place_margin = distance(scene.stick_init_pos, target) - TARGET_RADIUS
    stick_in_place = long_tail(distance(stick, target), 0.0, TARGET_RADIUS, stick_in_place_margin)
    container_to_target = distance(container, target)
    container_in_place_margin = distance(scene.obj_init_pos, target) - TARGET_RADIUS
    container_in_place = long_tail(container_to_target, 0.0, TARGET_RADIUS, container_in_place_margin)
    # Stock's own caging reward differs in nothing but stick_init_pos, where the others have obj_init_pos.
    reward, _ = caging_reward(gripper, action[3], stick, scene.stick_init_pos, 0.04, 0.05, 0.01, 0.01, HIGH_DENSITY)
    is_raised = tcp_opened > 0 and stick[2] - 0.01 > scene.stick_init_pos[2]
    if tcp_to_stick < 0.02 and is_raised:
        reward = 2.0 + 5.0 * stick_in_place + 3.0 * container_in_place
        if container_to_target <= TARGET_RADIUS:
            reward = 10.0
    return reward, is_raised and container_to_target <= 0.12


step = make_step(observe, evaluate)


def confirm(env: SawyerStickPushEnvV3) -> bool:
    """Return whether both fingers press on the stick. The contacts have no fixed place in memory for compiled code."""
    contact, force = env.data.contact, env.data.efc_force
    touches_object = (contact.geom == env._get_id_main_object()).any(axis=1)
    for pad in ("leftpad_geom", "rightpad_geom"):
        touches = touches_object & (contact.geom == env.data.geom(pad).id).any(axis=1)
        if not force[contact.efc_address[touches]].sum() > 0:
            return False
    return True
